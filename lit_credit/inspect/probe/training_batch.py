"""One batch of the training data before the training has begun."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import RunningStage

from lit_credit.inspect.probe.probe import in_stage, received
from lit_credit.inspect.probe.probe_loader import ProbeLoader
from lit_credit.inspect.probe.undisturbed import undisturbed
from lit_credit.utils.private_names import loader_source
from lit_credit.utils.random_state import preserved_rng

__all__ = ["training_batch"]


def training_batch(trainer: Trainer, module: LightningModule) -> Any:
    """The first training batch as ``module`` receives it, in ``setup``, before loaders are made.

    The loaders, their datasets and the random states stay as they were.

    Args:
        trainer: a Trainer whose ``fit`` has been called.
        module: the module that it is about to train.

    Raises:
        MisconfigurationException: if there are no training data, or if they are an iterator, from
            which reading would take a batch of the training.
    """
    with preserved_rng():
        make = loader_source(trainer.fit_loop)
        loader = None if make is None else make()
    if isinstance(loader, Iterator):
        raise MisconfigurationException(
            f"{type(module).__name__} must know the shapes of the units' outputs before training, "
            f"but reading {type(loader).__name__}, an iterator, would take a batch of the training."
            " Give the Trainer a DataLoader or a list of batches, or call `prepare(batch)` of the "
            "rule before `fit`."
        )
    if loader is None:
        raise MisconfigurationException(
            f"{type(module).__name__} must know the shapes of the units' outputs before training, "
            "but there are no training data. Give the Trainer training data."
        )
    source = ProbeLoader(loader, RunningStage.TRAINING, 1)
    with preserved_rng(), undisturbed(loader), in_stage(trainer, RunningStage.TRAINING):
        batches = list(islice(source.batches(), 1))
        if not batches:
            raise MisconfigurationException("the training data are empty; give the Trainer data.")
        return received(trainer, module, batches[0])
