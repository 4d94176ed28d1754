"""Sums of two numbers, written out, with carries where they are wanted."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from lit_credit.datamodules.tensor_datamodule import TensorDataModule
from lit_credit.datamodules.tensor_loader import Batch, TensorLoader
from lit_credit.protocols import NetProtocol, asked
from lit_credit.studies.addition.layout import AdditionLayout
from lit_credit.utils.random_state import generator_of
from lit_credit.utils.ranges import check_range, check_sizes

__all__ = ["Addition", "draw_sums", "forced_chains", "uniform_and_chains"]

# Keys of random numbers, after the seed. Keys of batches have at most three words.
_VAL, _TEST = (0, 0, 0, 2), (0, 0, 0, 3)


class Addition(TensorDataModule):
    """Sums of two numbers, drawn anew for each batch, their lowest digits first.

    A batch is (tokens, forced): int64 (B, 3 digits + 4), see
    :class:`lit_credit.studies.addition.AdditionLayout`, and bool (B,), the sums that were not
    drawn uniformly. Validation and test data are uniform sums of all digits, and sums with one
    forced run of carries of each length from 1 to ``digits``.

    The curriculum and the fade follow the number of updates. A resumed run continues the count, and
    several updates per training step count one by one. An epoch that ``limit_train_batches`` cuts
    short counts as a whole one.

    Args:
        digits: of each number that is added.
        batch_size: sums in a training batch, over all devices together.
        steps_per_epoch: training batches in an epoch; the run validates after each.
        curriculum: pairs (update, m): from that update on, numbers are uniform in [0, 10^m). The
            first update is 0; an m above ``digits`` counts as ``digits``.
        carry_mix: the probability that a sum is made of a pattern of carries instead; see
            :func:`lit_credit.studies.addition.data.draw_sums`.
        fade: two updates: the probability falls from the one to the other linearly to 0; None
            keeps it.
        val_size: uniform sums to validate on.
        test_size: uniform sums to test on.
        val_chains: sums of each length of run to validate on.
        test_chains: sums of each length of run to test on.
        val_batch_size: sums in a validation or test batch.
        seed: seed of everything drawn; None takes the one given to ``seed_everything``, or 0 if
            there was none. A resumed run keeps the one it had.

    Raises:
        ValueError: if an argument is out of range, or, in ``setup``, if the net adds numbers of
            other lengths.

    Example:
        >>> data = Addition(digits=3, batch_size=4)
        >>> tokens, forced = next(iter(data.train_dataloader()))
        >>> tokens.shape, forced.dtype
        (torch.Size([4, 13]), torch.bool)
    """

    def __init__(
        self,
        digits: int = 10,
        batch_size: int = 256,
        steps_per_epoch: int = 1000,
        curriculum: list[list[int]] | None = None,
        carry_mix: float = 0.8,
        fade: list[int] | None = None,
        val_size: int = 10_000,
        test_size: int = 10_000,
        val_chains: int = 100,
        test_chains: int = 1000,
        val_batch_size: int = 20_000,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, val_batch_size, seed)
        check_range(1, steps_per_epoch=steps_per_epoch)
        check_sizes(batch_size=batch_size, val_size=val_size, test_size=test_size)
        check_sizes(val_chains=val_chains, test_chains=test_chains)
        check_range(0, 1, carry_mix=carry_mix)
        self.layout = AdditionLayout(digits)
        self.steps_per_epoch = steps_per_epoch
        self.curriculum = _curriculum([[0, digits]] if curriculum is None else curriculum)
        self.carry_mix = carry_mix
        self.fade = _fade(fade)
        self.val_size, self.test_size = val_size, test_size
        self.val_chains, self.test_chains = val_chains, test_chains

    def setup(self, stage: str | None = None) -> None:
        """Check that the net fits the data."""
        layout = asked(self._net, NetProtocol.layout, self.layout)
        if layout != self.layout:
            raise ValueError(
                f"`digits` of the net is {layout.digits}, but the data have {self.layout.digits}. "
                "Make them equal."
            )

    def used_digits(self, update: int) -> int:
        """The digits of the numbers to train on after that many updates."""
        reached = [m for start, m in self.curriculum if start <= update]
        return min(reached[-1], self.layout.digits)

    def carry_probability(self, update: int) -> float:
        """The probability of a pattern of carries after that many updates."""
        if self.fade is None:
            return self.carry_mix
        start, stop = self.fade
        return self.carry_mix * min(max((stop - update) / (stop - start), 0.0), 1.0)

    def train_dataloader(self) -> TensorLoader:
        """New sums in every batch."""
        return self.loader(
            [torch.zeros(1)],  # the transform makes the batch
            self.batch_size,
            self._batch,
            draws=self.steps_per_epoch,
            numbered=True,
        )

    def val_dataloader(self) -> TensorLoader:
        """Uniform sums and forced chains, always the same."""
        tensors = self._evaluation(self.val_size, self.val_chains, _VAL)
        return self.loader(tensors, self.val_batch_size)

    def test_dataloader(self) -> TensorLoader:
        """Uniform sums and forced chains, others than those validated on."""
        tensors = self._evaluation(self.test_size, self.test_chains, _TEST)
        return self.loader(tensors, self.val_batch_size)

    def _batch(self, rows: Batch, generator: Generator, update: int) -> Batch:
        count, digits, used = len(rows[0]), self.layout.digits, self.used_digits(update)
        p = self.carry_probability(update)
        pair, forced = draw_sums(count, digits, used, p, generator)
        return self.layout.fill(*pair), forced

    def _evaluation(self, count: int, chains: int, key: tuple[int, ...]) -> Batch:
        generator = generator_of(self._seed(), *key)
        tokens = uniform_and_chains(self.layout, count, chains, generator)
        return tokens, torch.arange(len(tokens)) >= count


def _curriculum(stages: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    pairs = [(int(stage[0]), int(stage[1])) for stage in stages if len(stage) == 2]
    starts = [start for start, _ in pairs]
    well_formed = len(pairs) == len(stages) and starts[:1] == [0] and starts == sorted(set(starts))
    if not well_formed or min(m for _, m in pairs) < 1:
        raise ValueError(
            f"`curriculum` is {[list(stage) for stage in stages]}, expected pairs of an update and "
            "a number of digits, the updates ascending from 0, such as [[0, 3], [2000, 10]]."
        )
    return pairs


def _fade(fade: Sequence[int] | None) -> tuple[int, int] | None:
    if fade is None:
        return None
    if len(fade) != 2 or not 0 <= fade[0] < fade[1]:
        raise ValueError(f"`fade` is {list(fade)}, expected two updates, such as [15000, 45000].")
    return fade[0], fade[1]


# Drawing sums. N sums of D columns, the lowest first.

# What a column does. Its digits are x = floor(u (first)) + (second) and, v another uniform number,
# y = floor(v (third + fourth x)) + (fifth + sixth x).
_COLUMNS = torch.tensor(
    [
        [10, 0, 10, 0, 0, 0],  # free: both uniform
        [9, 0, 9, -1, 0, 0],  # none: x + y < 9, so that no carry leaves
        [9, 1, 0, 1, 10, -1],  # makes: x + y > 9
        [10, 0, 1, 0, 9, -1],  # passes: x + y = 9
        [1, 0, 1, 0, 0, 0],  # zero: both 0
        [1, 9, 1, 0, 0, 0],  # nine: x = 9, y = 0, which passes too
        [10, 0, 1, 0, 0, 0],  # alone: y = 0
    ]
)
_FREE, _NONE, _MAKES, _PASSES, _ZERO, _NINE, _ALONE = range(7)

# Of the patterns single, chain, place and boundary: what the run is made of, and all else.
_RUN = torch.tensor([_PASSES, _PASSES, _NINE, _PASSES])
_REST = torch.tensor([_NONE, _FREE, _ALONE, _ZERO])


def draw_sums(
    count: int, digits: int, used: int, carry_mix: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """X and Y of ``used`` digits: uniform, or with columns that make and pass on carries.

    The latter have one of four patterns, drawn at random. ``single``: one column makes a carry, no
    other column makes or passes one. ``chain``: one column makes a carry, some columns pass it on,
    the others are uniform. ``place``: as chain, but Y has only the digit that makes the carry.
    ``boundary``: a carry goes from the lowest column to a power of ten, and all above is zero.

    Args:
        count: sums N.
        digits: columns D.
        used: columns that are drawn; those above are 0.
        carry_mix: the probability of a pattern.
        generator: draws them.

    Returns:
        Digits, int64 (2, N, D), and which sums have a pattern, bool (N,).
    """
    column = torch.arange(used)
    choice, pattern, start, length = torch.rand(4, count, 1, generator=generator)
    forced, pattern = choice < carry_mix, (4 * pattern).long()
    first = (used * start).long() * (pattern < 3)
    last = first + ((used - first) * length).long() * (pattern > 0)
    kind = torch.where((column > first) & (column <= last), _RUN[pattern], _REST[pattern])
    kind = torch.where(column == first, _MAKES, kind)
    return _columns(torch.where(forced, kind, _FREE), digits, generator), forced[:, 0]


def forced_chains(count: int, digits: int, length: int, generator: Generator) -> Tensor:
    """X and Y whose carries make one run of ``length`` columns, at a random place.

    The run is one column that makes a carry and ``length - 1`` that pass it on; no other carries.

    Returns:
        int64 (2, N, D).
    """
    column = torch.arange(digits)
    first = torch.randint(digits - length + 1, (count, 1), generator=generator)
    # Above the run a sum of nine would pass the carry on, so all others stay below.
    kind = torch.where((column > first) & (column < first + length), _PASSES, _NONE)
    return _columns(torch.where(column == first, _MAKES, kind), digits, generator)


def uniform_and_chains(
    layout: AdditionLayout, count: int, chains: int, generator: Generator
) -> Tensor:
    """Sums to measure a net on: uniform ones first, then forced chains of every length.

    Args:
        layout: how the sums are written.
        count: uniform sums N, of all digits.
        chains: sums C of each length of chain, from 1 to ``layout.digits``.
        generator: draws them.

    Returns:
        int64 (N + C digits, T).
    """
    digits = layout.digits
    uniform, _ = draw_sums(count, digits, digits, 0.0, generator)
    runs = [forced_chains(chains, digits, length, generator) for length in range(1, digits + 1)]
    return layout.fill(*torch.cat([uniform, *runs], 1))


def _columns(kind: Tensor, digits: int, generator: Generator) -> Tensor:
    """Digits of columns that do what ``kind`` says, with zeros above."""
    u, v = torch.rand(2, *kind.shape, generator=generator)
    span, least, c, d, e, f = _COLUMNS.T.contiguous()[:, kind]
    pair = torch.zeros(2, len(kind), digits, dtype=torch.long)
    x = (u * span).long() + least
    used = pair[..., : kind.shape[1]]
    used[0], used[1] = x, (v * (c + d * x)).long() + e + f * x
    return pair
