"""The fixed batch that diagnostics look at."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from itertools import chain
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lit_credit.utils.finite import tensors_of
from lit_credit.utils.nested import first_tensor, items_of, with_items
from lit_credit.utils.probing import preserved_rng
from lit_credit.utils.updates import batches_of

__all__ = ["Probe", "take_probe"]


class Probe(NamedTuple):
    """The rows that diagnostics look at, in pieces."""

    chunks: list[Any]
    rows: list[int]

    @property
    def n_rows(self) -> int:
        """Rows of all chunks."""
        return sum(self.rows)

    def check_size(self, n_samples: int) -> None:
        """Refuse a probe that is smaller than what was asked for.

        Raises:
            ValueError: if it has fewer rows than ``n_samples``.
        """
        if self.n_rows < n_samples:
            raise ValueError(
                f"`n_samples` is {n_samples}, but the data have only {self.n_rows} rows. Set it to "
                f"at most {self.n_rows}, or leave it out."
            )


def take_probe(
    trainer: Trainer,
    module: LightningModule,
    n_samples: int,
    chunk_size: int | None = None,
    source: str = "val",
) -> Probe:
    """The probe in one piece, for now."""
    batch = probe_batch(trainer, module, n_samples)
    return Probe([batch], [_rows(batch)])


def probe_batch(trainer: Trainer, module: LightningModule, n_samples: int) -> Any:
    """The first rows of the validation data, as ``module`` receives them.

    They come in the structure of the batches, in the Trainer's precision and on the module's
    device, and have passed the hooks of batch transfer; of several validation loaders from the
    first, of a ``CombinedLoader`` that joins their batches from all. Without validation data they
    are training data. The loaders' workers, and their and the global random states are left as
    they were; a dataset that draws from a random state of its own is not.

    Args:
        trainer: a Trainer whose fit has started.
        module: the module that it trains.
        n_samples: rows to take; fewer if the data have fewer.

    Raises:
        MisconfigurationException: if there are no batches to join, if they hold no tensor, or if
            taking them from the training data would change the training.
    """
    loader = _first(_validation_loaders(trainer))
    stage = RunningStage.VALIDATING if loader is not None else RunningStage.TRAINING
    if loader is None:
        loader = _training_loader(trainer)
    batches, rows = [], 0
    with preserved_rng(), _preserved_generators(loader), _in_stage(trainer, stage):
        for raw in chain.from_iterable(batches_of(given, 1) for given in _batches(loader)):
            batch = _received(trainer, module, raw)
            batches.append(batch)
            rows += _rows(batch)
            if rows >= n_samples:
                break
    if not batches:
        raise MisconfigurationException(
            f"the {stage.dataloader_prefix} data are empty, so the diagnostics have no probe. "
            "Give the Trainer data."
        )
    return _joined(batches, [_rows(batch) for batch in batches], n_samples)


def _validation_loaders(trainer: Trainer) -> Any:
    """Those in use, or those that the Trainer would ask for if it were to validate now."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    if _first(trainer.val_dataloaders) is not None:
        known = loop._combined_loader
        return trainer.val_dataloaders if known is None else known
    with preserved_rng():
        return loop._data_source.dataloader() if loop._data_source.is_defined() else None


def _first(loaders: Any) -> Any:
    if isinstance(loaders, dict):
        loaders = list(loaders.values())
    if isinstance(loaders, list | tuple):
        return next((found for part in loaders if (found := _first(part)) is not None), None)
    one_by_one = isinstance(loaders, CombinedLoader) and loaders._mode == "sequential"
    return _first(loaders.iterables) if one_by_one else loaders


def _batches(loader: Any) -> Iterator[Any]:
    again = _unused(loader)
    if isinstance(again, CombinedLoader):
        return (batch for batch, *_ in again)
    return iter(again)


def _unused(loader: Any) -> Any:
    """A copy, so that a stateful loader stays where it is, and persistent workers draw nothing."""
    again = copy(loader)
    if isinstance(again, CombinedLoader):
        again.flattened = [_unused(part) for part in loader.flattened]
        again._iterator, again._limits = None, None
    elif isinstance(again, DataLoader):
        again._iterator = None
    return again


def _training_loader(trainer: Trainer) -> Any:
    loader: Any = trainer.train_dataloader
    if isinstance(loader, dict | list | tuple):
        raise MisconfigurationException(
            "without validation data the probe is training data, but these come from several "
            "loaders. Give the Trainer validation data of the structure of a training batch."
        )
    if isinstance(getattr(loader, "dataset", None), IterableDataset):
        raise MisconfigurationException(
            "without validation data the probe is training data, but reading an IterableDataset "
            "would take samples from the training. Give the Trainer validation data."
        )
    return loader


def _received(trainer: Trainer, module: LightningModule, batch: Any) -> Any:
    """What Lightning's loops do to a batch before the module sees it."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def _rows(batch: Any) -> int:
    tensor = next((tensor for tensor in tensors_of(batch) if tensor.dim()), None)
    if tensor is None:
        raise MisconfigurationException(
            "the probe is made of batches that hold tensors (N, ...) in tuples, lists, mappings or "
            f"dataclasses, but the data yield {type(batch).__name__} without any. Collate batches "
            "to one of these, or hand out another in `on_before_batch_transfer`."
        )
    return len(tensor)


@contextmanager
def _in_stage(trainer: Trainer, stage: RunningStage) -> Iterator[None]:
    """Hooks of batch transfer ask for the stage, to augment training data only."""
    before = trainer.state.stage
    trainer.state.stage = stage
    try:
        yield
    finally:
        trainer.state.stage = before


@contextmanager
def _preserved_generators(loader: Any) -> Iterator[None]:
    """Restore the generators of a torch DataLoader and its samplers, or of several combined."""
    holders: list[Any] = []
    for part in loader.flattened if isinstance(loader, CombinedLoader) else [loader]:
        batch_sampler = getattr(part, "batch_sampler", None)
        samplers = (getattr(part, "sampler", None), getattr(batch_sampler, "sampler", None))
        holders += [part, batch_sampler, *samplers]
    generators = {id(g): g for h in holders if (g := getattr(h, "generator", None)) is not None}
    states = [(generator, generator.get_state()) for generator in generators.values()]
    try:
        yield
    finally:
        for generator, before in states:
            generator.set_state(before)


def _joined(batches: Sequence[Any], rows: Sequence[int], limit: int) -> Any:
    """Concatenate batches of equal structure along their first dimension, up to ``limit`` rows.

    What has not one entry a row is taken from the first batch.
    """
    first = batches[0]
    if isinstance(first, Tensor):
        if [len(b) if b.dim() else -1 for b in batches] != list(rows):
            return first.clone()
        if len({b.shape[1:] for b in batches}) > 1:
            raise MisconfigurationException(
                f"batches of different shapes, {tuple(batches[0].shape)} and "
                f"{tuple(batches[-1].shape)}, cannot be joined to a probe. Set `n_samples` to at "
                f"most {rows[0]}, so that one batch is enough, or pad all batches alike."
            )
        return torch.cat(list(batches))[:limit].clone()
    is_sequence = isinstance(first, tuple | list)
    if is_sequence and first_tensor(first) is None and [len(b) for b in batches] == list(rows):
        return [item for b in batches for item in b][:limit]
    columns = zip(*map(items_of, batches), strict=True)
    joined = [(c[0][0], _joined([part for _, part in c], rows, limit)) for c in columns]
    return with_items(first, joined) if joined else first
