"""Sequences in which a pattern of symbols appears twice."""

from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Generator, Tensor

from lit_credit.datamodules.tensor_datamodule import TensorDataModule
from lit_credit.datamodules.tensor_loader import Batch, TensorLoader
from lit_credit.protocols import NetProtocol, asked
from lit_credit.utils.random_state import generator_of
from lit_credit.utils.ranges import check_choice, check_range, check_sizes

__all__ = ["Copying"]

_POOL, _VAL, _TEST = (0, 0, 0, 1), (0, 0, 0, 2), (0, 0, 0, 3)
"""Keys of random numbers, after the seed. Keys of batches have at most three words."""


class Copying(TensorDataModule):
    r"""Can what follows the first copy of a pattern be told at the second?

    A sequence has ``length`` symbols drawn one by one from p; a pattern of l symbols from p is then
    written twice, without overlap: with r = ``length`` - 2 l and offsets g_0 < g_1 drawn from 0 ..
    r - 1, it starts at g_0 and at g_1 + l. In distribution (ID), p is Zipf-Mandelbrot's,
    :math:`p_i \propto 1 / (i + 2.7)`, i = 1 .. V, l is drawn from ``pattern_lengths``, and patterns
    come from the pool; out of distribution (OOD), p is uniform, l is ``ood_pattern_length``, and
    every pattern is new.

    A batch is (x, y, scored, ood): symbols x (N, T) and their successors y (N, T), int64, with T =
    ``length`` - 1; scored (N, T), bool, where the error is taken; ood (N,), bool. Training batches
    are ID and always new, but for the pool. Half of the samples to evaluate on are OOD, every
    second one. The same sequences are validated on throughout a run; those to test on are others.

    Args:
        vocab_size: symbols V.
        length: symbols in a sequence.
        pattern_lengths: the smallest and the largest l of a pattern, ID.
        ood_pattern_length: l of all patterns, OOD.
        pool_size: patterns drawn once, with which all ID sequences are made; None draws a new one
            for each sequence.
        burn_in: symbols of the second copy that are read before the error is taken; the first
            symbol that is predicted comes right after them and one more.
        scored: ``copy`` takes the error on symbols of the copy alone. ``published`` also takes the
            symbol after it, which nobody can predict, as the published code does: an error of
            (1 - 1/V) / n remains where n symbols are scored.
        steps_per_epoch: training batches in an epoch; the run validates after each.
        batch_size: sequences in a training batch, over all devices together.
        val_batch_size: sequences in a validation or test batch, over all devices together.
        val_samples: sequences of each kind to validate on.
        test_samples: sequences of each kind to test on.
        seed: seed of everything drawn; None takes the one given to ``seed_everything``, or 0 if
            there was none. A resumed run keeps the one it had.

    Raises:
        ValueError: if an argument is out of range, or two patterns do not fit into a sequence.

    Example:
        >>> data = Copying(length=12, pattern_lengths=(3, 4), ood_pattern_length=4, burn_in=1)
        >>> x, y, scored, ood = next(iter(data.train_dataloader()))
        >>> x.shape, int(scored.sum(1).min()), int(scored.sum(1).max()), bool(ood.any())
        (torch.Size([50, 11]), 1, 2, False)

    Reference:
        Song, Xu, Zhong, Out-of-distribution generalization via composition: a lens through
        induction heads in Transformers, 2024, arXiv 2408.09503.
    """

    def __init__(
        self,
        vocab_size: int = 64,
        length: int = 64,
        pattern_lengths: tuple[int, int] = (10, 19),
        ood_pattern_length: int = 25,
        pool_size: int | None = None,
        burn_in: int = 4,
        scored: Literal["copy", "published"] = "copy",
        steps_per_epoch: int = 100,
        batch_size: int = 50,
        val_batch_size: int = 1000,
        val_samples: int = 500,
        test_samples: int = 5000,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, val_batch_size, seed)
        check_range(2, vocab_size=vocab_size)
        check_range(1, steps_per_epoch=steps_per_epoch)
        check_range(0, burn_in=burn_in)
        check_sizes(length=length, pool_size=pool_size, batch_size=batch_size)
        check_sizes(ood_pattern_length=ood_pattern_length)
        check_sizes(val_samples=val_samples, test_samples=test_samples)
        if len(pattern_lengths) != 2 or not 1 <= pattern_lengths[0] <= pattern_lengths[1]:
            raise ValueError(
                f"`pattern_lengths` is {list(pattern_lengths)}, expected the smallest and the "
                "largest, such as [10, 19]."
            )
        shortest, longest = pattern_lengths[0], max(pattern_lengths[1], ood_pattern_length)
        if length < 2 * longest + 2:
            raise ValueError(
                f"`length` is {length}, too short for two patterns of {longest} symbols and two "
                f"offsets; expected at least {2 * longest + 2}. Make it longer, or "
                "`pattern_lengths` and `ood_pattern_length` smaller."
            )
        if min(shortest, ood_pattern_length) < burn_in + 2:
            raise ValueError(
                f"`burn_in` is {burn_in}, which leaves no symbol to score of a pattern of "
                f"{min(shortest, ood_pattern_length)}. Make it smaller, or the patterns longer."
            )
        check_choice(["copy", "published"], scored=scored)
        self.vocab_size = vocab_size
        self.length = length
        self.pattern_lengths = pattern_lengths
        self.ood_pattern_length = ood_pattern_length
        self.pool_size = pool_size
        self.burn_in = burn_in
        self.scored = scored
        self.steps_per_epoch = steps_per_epoch
        self.val_samples = val_samples
        self.test_samples = test_samples

    def setup(self, stage: str | None = None) -> None:
        """Check that the net can take the symbols, and say what is learned."""
        most = asked(self._net, NetProtocol.vocab_size, None)
        if most is not None and most < self.vocab_size:
            raise ValueError(
                f"`vocab_size` of the net is {most}, but the data have {self.vocab_size} symbols. "
                "Make them equal."
            )
        if stage == "fit":
            pool = "new patterns" if self.pool_size is None else f"{self.pool_size} patterns"
            rank_zero_info(
                f"Copying: {pool}; an error of {1 - 1 / self.vocab_size:.3f} is chance OOD"
            )

    def train_dataloader(self) -> TensorLoader:
        """New sequences in every batch."""
        patterns = self._pool()
        return self.loader(patterns, self.batch_size, self._train_batch, draws=self.steps_per_epoch)

    def val_dataloader(self) -> TensorLoader:
        """ID and OOD sequences by turns, always the same."""
        return self.loader(self._evaluation(_VAL, self.val_samples), self.val_batch_size)

    def test_dataloader(self) -> TensorLoader:
        """ID and OOD sequences by turns, others than those validated on."""
        return self.loader(self._evaluation(_TEST, self.test_samples), self.val_batch_size)

    # Drawing

    def _pool(self) -> Batch:
        """Patterns (S, l) and their lengths (S,); lengths only where every pattern is new."""
        generator = generator_of(self._seed(), *_POOL)
        count = self.pool_size or self.batch_size
        lengths = self._lengths(count, generator)
        if self.pool_size is None:
            return (lengths,)
        return self._symbols((count, self.pattern_lengths[1]), generator), lengths

    def _train_batch(self, rows: Batch, generator: Generator) -> Batch:
        if self.pool_size is None:
            rows = self._fresh(len(rows[0]), generator)
        return self._batch(*rows, ood=False, generator=generator)

    def _evaluation(self, key: tuple[int, ...], count: int) -> Batch:
        generator = generator_of(self._seed(), *key)
        if self.pool_size is None:
            patterns, lengths = self._fresh(count, generator)
        else:
            rows = torch.randint(self.pool_size, (count,), generator=generator)
            patterns, lengths = (part[rows] for part in self._pool())
        known = self._batch(patterns, lengths, ood=False, generator=generator)
        size = self.ood_pattern_length
        patterns = self._symbols((count, size), generator, ood=True)
        lengths = torch.full((count,), size)
        new = self._batch(patterns, lengths, ood=True, generator=generator)
        return tuple(torch.stack(pair, 1).flatten(0, 1) for pair in zip(known, new, strict=True))

    def _fresh(self, count: int, generator: Generator) -> Batch:
        size = count, self.pattern_lengths[1]
        return self._symbols(size, generator), self._lengths(count, generator)

    def _lengths(self, count: int, generator: Generator) -> Tensor:
        low, high = self.pattern_lengths
        return torch.randint(low, high + 1, (count,), generator=generator)

    def _symbols(self, size: tuple[int, int], generator: Generator, ood: bool = False) -> Tensor:
        if ood:
            return torch.randint(self.vocab_size, size, generator=generator)
        # The inverse of the distribution function at uniform numbers: 7 times faster than
        # torch.multinomial.
        p = 1 / (torch.arange(1, self.vocab_size + 1) + 2.7)
        cdf = p.double().cumsum(0)
        u = torch.rand(size, generator=generator, dtype=torch.float64) * cdf[-1]
        return torch.searchsorted(cdf, u, right=True).clamp(max=self.vocab_size - 1)

    def _batch(
        self, patterns: Tensor, lengths: Tensor, *, ood: bool, generator: Generator
    ) -> Batch:
        """Background symbols, the pattern (N, l) written over them twice, and what is scored."""
        count = len(lengths)
        tokens = self._symbols((count, self.length), generator, ood)
        l, at = lengths[:, None], torch.arange(self.length)  # noqa: E741 - as in the reference
        first, second = _offsets(self.length - 2 * lengths, generator)
        starts = first[:, None], second[:, None] + l
        for start in starts:
            place = (at - start).clamp(0, patterns.shape[1] - 1)
            tokens = torch.where(
                (at >= start) & (at < start + l), patterns.gather(1, place), tokens
            )
        # Of an input at t the successor, at t + 1, is scored.
        end = starts[1] + l - (1 if self.scored == "copy" else 0)
        scored = (at >= starts[1] + self.burn_in) & (at < end)
        flag = torch.full((count,), ood)
        return tokens[:, :-1], tokens[:, 1:], scored[:, :-1], flag


def _offsets(room: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Two different numbers below each of ``room`` (N,), the smaller one first."""
    u = torch.rand(2, len(room), generator=generator)
    one = (u[0] * room).long()
    other = (u[1] * (room - 1)).long()
    other = other + (other >= one)
    return torch.minimum(one, other), torch.maximum(one, other)
