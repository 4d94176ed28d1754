"""The fixed batch that diagnostics look at."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from inspect import signature
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lit_credit.utils.nested import first_tensor
from lit_credit.utils.probing import preserved_rng

__all__ = ["batch_loss", "probe_batch"]


def probe_batch(trainer: Trainer, n_samples: int) -> Any:
    """The first rows of the validation data, in the structure of its batches.

    Without validation data they are training data. The loaders' and the global random states are
    left as they were.

    Args:
        trainer: a Trainer whose fit has started.
        n_samples: rows to take; fewer if the data have fewer.

    Raises:
        MisconfigurationException: if the batches hold no tensor.
    """
    loader: Any = trainer.val_dataloaders or trainer.train_dataloader
    while isinstance(loader, dict | list | tuple):
        loader = next(iter(loader.values() if isinstance(loader, dict) else loader))
    batches, rows = [], 0
    with preserved_rng(), _preserved_generators(loader):
        # A copy, so that a stateful loader stays where it is.
        for batch in copy(loader):
            tensor = first_tensor(batch)
            if tensor is None or tensor.dim() == 0:
                raise MisconfigurationException(
                    f"the probe is made of batches that hold tensors (N, ...), but the validation "
                    f"data yield {type(batch).__name__} without any."
                )
            batches.append(batch)
            rows += len(tensor)
            if rows >= n_samples:
                break
    if not batches:
        raise MisconfigurationException("the validation data are empty, so there is no probe.")
    return _joined(batches, rows, n_samples)


@contextmanager
def _preserved_generators(loader: Any) -> Iterator[None]:
    """Restore the generators of a torch DataLoader and its sampler."""
    holders = (loader, getattr(loader, "sampler", None))
    generators = {id(g): g for h in holders if (g := getattr(h, "generator", None)) is not None}
    states = [(generator, generator.get_state()) for generator in generators.values()]
    try:
        yield
    finally:
        for generator, before in states:
            generator.set_state(before)


def _joined(batches: Sequence[Any], rows: int, limit: int) -> Any:
    """Concatenate batches of equal structure along their first dimension, up to ``limit`` rows."""
    first = batches[0]
    if isinstance(first, Tensor):
        if first.dim() == 0:
            return first.clone()
        return torch.cat(list(batches))[:limit].clone()
    if isinstance(first, dict):
        return {key: _joined([b[key] for b in batches], rows, limit) for key in first}
    if isinstance(first, tuple | list):
        parts = [_joined(column, rows, limit) for column in zip(*batches, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    return first


def batch_loss(module: LightningModule, batch: Any) -> Tensor:
    """The training loss of any LightningModule on a batch, with nothing logged.

    ``module.batch_loss(batch)`` where it exists, as in lit_credit's rules; else what
    ``training_step`` returns.

    Raises:
        MisconfigurationException: if ``training_step`` does not return a loss.
    """
    own = getattr(module, "batch_loss", None)
    if callable(own):
        loss: Any = own(batch)
    else:
        with _nothing_logged(module):
            loss = module.training_step(
                *(batch, 0)[: len(signature(module.training_step).parameters)]
            )
        loss = loss["loss"] if isinstance(loss, dict) else loss
    if not isinstance(loss, Tensor) or loss.dim() > 0:
        raise MisconfigurationException(
            f"{type(module).__name__}.training_step returns {type(loss).__name__}, not a scalar "
            "loss. Give the module a method `batch_loss(batch)` that returns it."
        )
    return loss


@contextmanager
def _nothing_logged(module: LightningModule) -> Iterator[None]:
    names = ("log", "log_dict")
    before = {name: module.__dict__[name] for name in names if name in module.__dict__}
    for name in names:
        setattr(module, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name in names:
            delattr(module, name)
        for name, value in before.items():
            setattr(module, name, value)
