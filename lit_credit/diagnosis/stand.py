"""A Trainer that holds a module, its data and its diagnostics, and does not train."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from lightning.pytorch.utilities import CombinedLoader
from lightning_utilities.core import rank_zero
from torch.nn.parameter import is_lazy

from lit_credit.diagnosis.data import Data
from lit_credit.protocols import ModuleProtocol, method
from lit_credit.utils.both_packages import is_a, with_twins
from lit_credit.utils.private_names import (
    attach_data,
    has_loaders,
    hold_training_loaders,
    set_place,
    trainer_of,
)
from lit_credit.utils.random_state import preserved_rng

__all__ = ["standing", "trainer_for", "unsaid_devices"]


def trainer_for(
    module: LightningModule, callbacks: Sequence[Callback], folder: Path, *, logs: bool
) -> Trainer:
    """Make a Trainer of the module's package, on one process; it moves nothing.

    Args:
        module: the module.
        callbacks: the diagnostics.
        folder: the folder of the histories.
        logs: write TensorBoard events there too.
    """
    of_package = zip(
        with_twins(LightningModule),
        with_twins(Trainer),
        with_twins(LightningEnvironment),
        strict=True,
    )
    kind, environment = next(found for base, *found in of_package if isinstance(module, base))
    logger = TensorBoardLogger(str(folder), name="", version="") if logs else False
    with unsaid_devices():
        made: Trainer = kind(
            accelerator="cpu",
            devices=1,
            plugins=[environment()],
            logger=logger,
            callbacks=list(callbacks),
            max_epochs=1,
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=str(folder),
        )
    return made


@contextmanager
def unsaid_devices() -> Iterator[None]:
    """Make a Trainer inside without its lines about devices, which a diagnosis does not choose."""
    before = rank_zero.log.level
    rank_zero.log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*available but not used", UserWarning)
            yield
    finally:
        rank_zero.log.setLevel(before)


@contextmanager
def standing(trainer: Trainer, module: LightningModule, data: Data) -> Iterator[None]:
    """Attach a module and data to a Trainer as at the start of a fit; detach them on exit.

    The hooks ``prepare_data`` and ``setup("fit")`` of data and module are called. Optimizers are
    made if the loss is that of ``training_step``, which may read them. Nothing is moved, and no
    hook of a fit that begins is called.

    Args:
        trainer: the Trainer.
        module: the module.
        data: the data.

    Raises:
        Exception: any error of the hooks.
    """
    with ExitStack() as undo:
        for child in module.modules():
            if is_a(child, LightningModule):
                undo.callback(set_place, child, trainer_of(child), child.device)
        if data.datamodule is not None:
            undo.callback(setattr, data.datamodule, "trainer", data.datamodule.trainer)
        trainer.state.fn, trainer.state.stage = TrainerFn.FITTING, RunningStage.TRAINING
        attach_data(trainer, module, data.loader, data.datamodule)
        set_place(module, trainer, _device(module))
        with preserved_rng():
            if data.datamodule is not None:
                data.datamodule.prepare_data()
                data.datamodule.setup("fit")
            else:
                module.prepare_data()
            with _built_once(module):
                module.configure_model()
                module.setup("fit")
            if has_loaders(trainer.fit_loop):
                hold_training_loaders(trainer, _combined)
            if method(module, ModuleProtocol.batch_loss) is None:
                _make_optimizers(trainer)
        yield


@contextmanager
def _built_once(module: LightningModule) -> Iterator[None]:
    """Keep the weights of a module whose ``setup`` builds its layers again."""
    before = module.state_dict(keep_vars=True)
    yield
    after = module.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, value in after.items():
            known = before.get(name)
            if not isinstance(known, torch.Tensor) or known is value or is_lazy(known):
                continue
            if known.shape == value.shape:
                value.copy_(known)


def _make_optimizers(trainer: Trainer) -> None:
    """Make the module's optimizers if that is possible without a fit."""
    with warnings.catch_warnings(), suppress(Exception):  # of the user's own code
        warnings.simplefilter("ignore")
        trainer.strategy.setup_optimizers(trainer)


def _combined(loaders: Any) -> Any:
    return loaders if is_a(loaders, CombinedLoader) else CombinedLoader(loaders, "max_size_cycle")


def _device(module: LightningModule) -> torch.device:
    """Where the module's tensors are; it knows that only of moves by its own methods."""
    tensors = chain(module.parameters(), module.buffers())
    return next((tensor.device for tensor in tensors), module.device)
