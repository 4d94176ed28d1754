"""Whole batches from tensors in memory, resumable at any batch."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from lit_credit.inspect.updates import Updates
from lit_credit.utils.random_state import generator_of
from lit_credit.utils.ranges import check_range

__all__ = ["Batch", "TensorLoader", "Transform"]

Batch = tuple[Tensor, ...]
Transform = Callable[..., Batch]
"""Maps a batch and its generator (and its number, if the loader is numbered) to a batch."""

_ORDER, _FIRST_BATCH = 0, 1
"""Last number of a seed: 0 for the order of an epoch, 1 + i for the transform of batch i."""


class TensorLoader:
    """A loader over tensors; every batch is a function of (seed, epoch, batch index).

    So the whole state of the loader is (epoch, batch), and a run that is resumed in mid-epoch sees
    exactly the batches of an uninterrupted run. The loader neither reads nor changes the global
    random state.

    An iteration starts at the loader's position ``(epoch, batch)``: in mid-epoch after
    ``load_state_dict``, otherwise at the start of an epoch. An iteration that returned a batch
    counts as an epoch, even if it was left early; an iteration that returned none does not. Two
    iterations at once are independent, but share the record of the position.

    Lightning uses the loader as it is (:attr:`sampler` receives the Trainer's epoch); so does a
    plain loop::

        for _ in range(epochs):
            for x, y in loader:
                ...

    Args:
        tensors: tensors of the same length n; the first dimension is the samples.
        batch_size: samples in a GLOBAL batch, over all ranks together; a multiple of
            ``world_size``.
        shuffle: draw a new order each epoch.
        seed: seed of all orders and transforms, not negative.
        drop_last: leave out a last batch of fewer than ``batch_size`` samples.
        draws: batches in an epoch, each of samples drawn at random with replacement; ``shuffle``
            then has no effect. None goes through the samples once.
        transform: called with the tensors of a global batch and the batch's own CPU generator,
            returns the tensors of the batch with as many rows. Every rank transforms the whole
            global batch and then takes its rows, so that the ranks together see what a single
            process sees; the cost is ``world_size`` times the work.
        numbered: also call the transform with the number of the batch, counted from 0 over all
            epochs.
        rank: index of this process, from 0.
        world_size: number of processes. Each global batch is cut into equal, contiguous slices;
            rank r takes slice r. If the last batch is not divisible, its last rows are dropped, at
            most ``world_size - 1``.
        updates: number of batches to return together, as one
            :class:`lit_credit.inspect.updates.Updates`, for training steps of several updates;
            fewer at the end of an epoch. The batches are those that would come one by one. ``len``
            counts the groups.

    Attributes:
        epoch: epoch of the last returned batch, or of the next one if none was returned.
        batch: number of returned batches of that epoch; each batch of :class:`Updates` counts.

    Raises:
        ValueError: if an argument is out of range, the tensors differ in length, or there is not a
            single batch.

    Example:
        >>> loader = TensorLoader([torch.arange(5)], batch_size=2, shuffle=False)
        >>> [x.tolist() for (x,) in loader]
        [[0, 1], [2, 3], [4]]
        >>> loader.load_state_dict({"epoch": 3, "batch": 2})
        >>> [x.tolist() for (x,) in loader], loader.state_dict()
        ([[4]], {'epoch': 3, 'batch': 3})
    """

    # Lightning also asks every loader that has a `sampler` for a `batch_sampler`.
    batch_sampler: ClassVar[None] = None
    rows_first: ClassVar[bool] = True
    """Every tensor of a batch has one entry per row, so a probe need not find out."""

    def __init__(
        self,
        tensors: Sequence[Tensor],
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        draws: int | None = None,
        transform: Transform | None = None,
        numbered: bool = False,
        rank: int = 0,
        world_size: int = 1,
        updates: int = 1,
    ) -> None:
        check_range(1, draws=draws, updates=updates, batch_size=batch_size)
        check_range(0, seed=seed)
        check_range(0, world_size - 1, rank=rank)
        _check(tensors, batch_size, world_size)
        self.tensors = tuple(tensors)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.draws = draws
        self.seed = seed
        self.transform = transform
        self.numbered = numbered
        self.rank = rank
        self.world_size = world_size
        self.updates = updates
        self.epoch = 0
        self.batch = 0
        self._resumed = False
        full, rest = divmod(len(self.tensors[0]), batch_size)
        self._length = draws or full + int(rest >= world_size and not drop_last)
        if not self._length:
            raise ValueError(
                f"`batch_size`={batch_size} with `drop_last`={drop_last}, `world_size`={world_size}"
                f" leaves no batch of {len(self.tensors[0])} samples. Make it smaller."
            )

    def __len__(self) -> int:
        """Number of batches in an epoch, or of :class:`Updates`."""
        return -(-self._length // self.updates)

    def __iter__(self) -> Iterator[Any]:
        # A generator: nothing below runs before the first batch is requested. So `iter()` alone
        # does not move the position, and a `set_epoch` in between takes effect.
        consumed = self.batch > 0 and not self._resumed
        if consumed or self.batch >= self._length:
            self.set_epoch(self.epoch + 1)
        epoch, order = self.epoch, None if self.draws else self._order(self.epoch)
        for batch in range(self.batch, self._length, self.updates):
            stop = min(batch + self.updates, self._length)
            # Set before the yield: Lightning never exhausts the iterator of a sized loader.
            self.epoch, self.batch, self._resumed = epoch, stop, False
            batches = [self._read(order, epoch, index) for index in range(batch, stop)]
            yield batches[0] if self.updates == 1 else Updates(batches)

    @property
    def sampler(self) -> "TensorLoader":
        """The loader itself: Lightning calls ``loader.sampler.set_epoch`` before each epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of ``epoch``, unless the loader is already in it.

        Args:
            epoch: number of completed epochs. Lightning's count tells whether an epoch cut short by
                ``limit_train_batches`` is over; (epoch, batch) alone cannot tell this.
        """
        if epoch != self.epoch:
            self.epoch, self.batch, self._resumed = epoch, 0, False

    def state_dict(self) -> dict[str, int]:
        """The position of the loader: ``{"epoch": int, "batch": int}``."""
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after the batch at which ``state`` was taken.

        Args:
            state: the result of :meth:`state_dict` of a loader with the same arguments (``rank``
                and ``world_size`` may differ). After the last batch of an epoch, the next epoch
                follows.
        """
        self.epoch, self.batch, self._resumed = state["epoch"], state["batch"], True

    def _order(self, epoch: int) -> Tensor:
        n = len(self.tensors[0])
        if not self.shuffle:
            return torch.arange(n)
        return torch.randperm(n, generator=generator_of(self.seed, epoch, _ORDER))

    def _read(self, order: Tensor | None, epoch: int, batch: int) -> Batch:
        if order is None:
            generator = generator_of(self.seed, epoch, _ORDER, batch)
            rows = torch.randint(len(self.tensors[0]), (self.batch_size,), generator=generator)
        else:
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
        # `tensor[rows]` took 15 times as long on uint8 images.
        tensors = tuple(t.index_select(0, rows.to(t.device)) for t in self.tensors)
        if self.transform is not None:
            number = (epoch * self._length + batch,) if self.numbered else ()
            generator = generator_of(self.seed, epoch, _FIRST_BATCH + batch)
            tensors = self.transform(tensors, generator, *number)
        if self.world_size == 1:
            return tensors
        share = len(rows) // self.world_size
        return tuple(tensor[self.rank * share : (self.rank + 1) * share] for tensor in tensors)


def _check(tensors: Sequence[Tensor], batch_size: int, world_size: int) -> None:
    lengths = [len(tensor) for tensor in tensors]
    if len(set(lengths)) != 1 or not lengths[0]:
        raise ValueError(
            f"`tensors` have {lengths} samples, expected one length for all, above 0. "
            "Pass at least one tensor, the samples in its first dimension."
        )
    if batch_size % world_size:
        raise ValueError(
            f"`batch_size` is {batch_size}, expected a multiple of `world_size`, {world_size}, "
            "since it counts the samples of all processes together. Change it, or the number of "
            "devices."
        )
