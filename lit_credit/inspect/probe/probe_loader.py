"""Choosing the loader that a probe is read from, and reading its batches."""

from collections.abc import Iterable, Iterator
from copy import copy
from itertools import chain, islice
from typing import Any, Literal

from lightning.fabric.utilities.data import sized_len
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, IterableDataset

from lit_credit.inspect.updates import batches_of
from lit_credit.protocols import LoaderProtocol, asked
from lit_credit.utils.both_packages import is_a
from lit_credit.utils.private_names import (
    combined_loader,
    forget_iterator,
    is_in_turns,
    loader_source,
)
from lit_credit.utils.random_state import preserved_rng

__all__ = ["ProbeLoader", "probe_loader", "training_rows"]


class ProbeLoader:
    """Batches of one of the Trainer's loaders, read from a copy of the loader.

    Args:
        loader: the loader that Lightning iterates over, or the first of those that take turns.
        stage: what the batches are for.
        limit: how many batches the Trainer uses, or which share of them.
    """

    def __init__(self, loader: Any, stage: RunningStage, limit: int | float) -> None:
        self.loader = loader
        self.stage = stage
        self.limit = limit

    @property
    def parts(self) -> list[Any]:
        """The loader itself, or the loaders whose batches it joins."""
        return _parts(self.loader)

    @property
    def holds_rows(self) -> bool:
        """Whether the loader declares that each tensor of a batch has one entry per row."""
        return all(asked(part, LoaderProtocol.rows_first, False) for part in self.parts)

    @property
    def is_limited(self) -> bool:
        """Whether the Trainer does not use all batches."""
        return isinstance(self.limit, int) or self.limit < 1

    @property
    def lacks_samples(self) -> bool:
        """Whether more batches must be read for :meth:`proofs`."""
        return any(indices.counts and len(indices.seen) < 3 for indices in self.indices)

    @property
    def samples(self) -> int | None:
        """Number of samples in the first batch, if the loader's indices tell it, else None."""
        counts = [count for indices in self.indices for count in indices.counts[:1]]
        known = len(counts) == len(self.indices) == 1 and not _is_stream(self.loader)
        return counts[0] if known else None

    def batches(self) -> Iterator[Any]:
        """The batches of the first epoch, one per update, as the loader hands them out."""
        self.indices = [_Indices(_index_sampler(part)) for part in self.parts]
        again = _copied(self.loader, self.indices)
        for part in _parts(again):
            _go_to_start(part)
        source: Iterable[Any] = iter(again)
        limit = self.limit if isinstance(self.limit, int) else None
        if limit is None and self.limit < 1:
            length = sized_len(again)
            limit = None if length is None else max(int(length * self.limit), 1)
        if is_a(again, CombinedLoader):
            source = (batch for batch, *_ in again)
        return chain.from_iterable(batches_of(given, 1) for given in islice(source, limit))

    def proofs(self) -> list[Any]:
        """A batch of two and a batch of three samples; empty if the loader cannot make them.

        Only a loader that collates samples of a dataset can: it takes the samples that were read
        first, or the first five of a stream.
        """
        known = [indices.seen for indices in self.indices]
        if not all(len(seen) >= 3 for seen in known):
            return []
        again = _copied(self.loader, [[seen[:2], seen[:3]] for seen in known])
        for part in _parts(again):
            # One worker is enough if the samples are not read in the main process.
            object.__setattr__(part, "num_workers", min(part.num_workers, 1))
            object.__setattr__(part, "persistent_workers", False)
        source = iter(again)
        found = [given[0] if is_a(again, CombinedLoader) else given for given in source]
        return found if len(found) == 2 else []


class _Indices:
    """A sampler of batches that keeps the first indices it hands out."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.seen: list[Any] = []
        self.counts: list[int] = []

    def __iter__(self) -> Iterator[Any]:
        for batch in self.sampler:
            if isinstance(batch, list | tuple):
                self.counts.append(len(batch))
                self.seen = (self.seen + list(batch))[:3] if len(self.seen) < 3 else self.seen
            yield batch

    def __len__(self) -> int:
        return len(self.sampler)


def probe_loader(trainer: Trainer, source: Literal["val", "train"]) -> ProbeLoader:
    """The first validation loader; the training loader if there is none or ``source`` asks for it.

    In ``trainer.validate`` and ``trainer.test`` it is the first loader that is validated or tested.

    Raises:
        MisconfigurationException: if reading the data would take samples from the training, the
            validation or the test.
    """
    if source == "val" and trainer.state.fn in _EVALUATIONS:
        return _evaluated_loader(trainer)
    loader = _first(_validation_loaders(trainer)) if source == "val" else None
    if loader is not None:
        # A limit of 0 means never to validate; it does not mean that there are no data.
        limit = trainer.limit_val_batches or 1.0
        return ProbeLoader(loader, RunningStage.VALIDATING, limit)
    return ProbeLoader(
        _training_loader(trainer), RunningStage.TRAINING, trainer.limit_train_batches
    )


_EVALUATIONS = {
    TrainerFn.VALIDATING: ("validate_loop", "limit_val_batches", RunningStage.VALIDATING),
    TrainerFn.TESTING: ("test_loop", "limit_test_batches", RunningStage.TESTING),
}


def _evaluated_loader(trainer: Any) -> ProbeLoader:
    loop, limit, stage = _EVALUATIONS[trainer.state.fn]
    loader = _first(combined_loader(getattr(trainer, loop)))
    for part in _parts(loader):
        if isinstance(part, Iterator):
            raise MisconfigurationException(
                f"reading the probe from {type(part).__name__}, an iterator, would take samples "
                f"the {stage.value}. Give `trainer.{trainer.state.fn.value}` a DataLoader or a "
                "list of batches."
            )
    return ProbeLoader(loader, stage, getattr(trainer, limit))


def training_rows(trainer: Trainer) -> int | None:
    """Rows of a training batch on one process; None if the loader does not tell."""
    loader = combined_loader(trainer.fit_loop)
    sizes = []
    for part in [] if loader is None else loader.flattened:
        batches = getattr(part, "batch_sampler", None)
        size = getattr(batches, "batch_size", None) or getattr(part, "batch_size", None)
        if isinstance(size, int):
            sizes.append(size // asked(part, LoaderProtocol.world_size, 1))
    return min(sizes) if sizes else None


def _validation_loaders(trainer: Trainer) -> Any:
    """The validation loaders in use, or those that the Trainer would request to validate now."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    if _first(trainer.val_dataloaders) is not None:
        known = combined_loader(loop)
        return trainer.val_dataloaders if known is None else known
    with preserved_rng():
        ask = loader_source(loop)
        return None if ask is None else ask()


def _training_loader(trainer: Trainer) -> Any:
    combined = combined_loader(trainer.fit_loop)
    given = trainer.train_dataloader
    loader = combined if isinstance(given, dict | list | tuple) else given
    if loader is None:
        raise MisconfigurationException(
            "there are no data to take a probe from: no validation data, and no training data or "
            "`limit_train_batches=0`. Give the Trainer validation data, or leave the diagnostics "
            "out."
        )
    for part in _parts(loader):
        if _is_stream(part) or isinstance(part, Iterator):
            kind = type(part.dataset if _is_stream(part) else part).__name__
            raise MisconfigurationException(
                f"the probe would be training data, but reading {kind}, an IterableDataset or "
                "iterator, would take samples from the training. Give the Trainer validation data "
                "of the structure of a training batch, and leave the diagnostics' `probe` at 'val'."
            )
    return loader


def _first(loaders: Any) -> Any:
    if isinstance(loaders, dict):
        loaders = list(loaders.values())
    if isinstance(loaders, list | tuple):
        return next((found for part in loaders if (found := _first(part)) is not None), None)
    one_by_one = is_a(loaders, CombinedLoader) and is_in_turns(loaders)
    return _first(loaders.iterables) if one_by_one else loaders


def _parts(loader: Any) -> list[Any]:
    return list(loader.flattened) if is_a(loader, CombinedLoader) else [loader]


def _index_sampler(loader: Any) -> Any:
    """The sampler that gives the indices of each batch, or None."""
    if not isinstance(loader, DataLoader):
        return None
    if loader.batch_sampler is None:
        return None if _is_stream(loader) else loader.sampler
    return loader.batch_sampler


def _is_stream(loader: Any) -> bool:
    return isinstance(getattr(loader, "dataset", None), IterableDataset)


def _go_to_start(loader: Any) -> None:
    """Set the order of the first epoch, so that a resumed run takes the same probe."""
    batches = getattr(loader, "batch_sampler", None)
    batches = batches.sampler if isinstance(batches, _Indices) else batches
    samplers = (batches, getattr(loader, "sampler", None), getattr(batches, "sampler", None))
    for sampler in {id(sampler): sampler for sampler in samplers}.values():
        go_to = getattr(sampler, "set_epoch", None)
        if callable(go_to):
            go_to(1)  # a sampler in the middle of epoch 0 goes back to its start
            go_to(0)


def _copied(loader: Any, samplers: list[Any]) -> Any:
    """Copy a loader, so that a stateful one stays where it is and persistent workers draw nothing.

    Args:
        loader: a loader of the Trainer.
        samplers: for each of its parts, the sampler that replaces its sampler of batches.
    """
    again = copy(loader)
    if is_a(again, CombinedLoader):
        pairs = zip(loader.flattened, samplers, strict=True)
        again.flattened = [_copied(part, [sampler]) for part, sampler in pairs]
        forget_iterator(again)
        again.limits = None
    elif isinstance(again, DataLoader):
        forget_iterator(again)
        if _index_sampler(again) is not None:
            name = "sampler" if again.batch_sampler is None else "batch_sampler"
            object.__setattr__(again, name, samplers[0])  # torch allows no other way
    return again
