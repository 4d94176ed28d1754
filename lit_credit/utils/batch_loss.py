"""The training loss of any LightningModule, outside of its training."""

from inspect import Parameter, signature
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_credit.utils.nested import map_tensors
from lit_credit.utils.preserved_state import preserved_state
from lit_credit.utils.probing import preserved_rng

__all__ = ["batch_loss", "check_batch_loss"]

_REMEDY = "Give the module a method `batch_loss(batch)` that returns its scalar loss."


def check_batch_loss(module: LightningModule) -> None:
    """Refuse a module whose loss cannot be had without training it.

    Raises:
        MisconfigurationException: if the module has no ``batch_loss`` and its ``training_step``
            steps the optimizer itself, or fetches its own batches.
    """
    if callable(getattr(module, "batch_loss", None)):
        return
    kind = type(module).__name__
    if not module.automatic_optimization:
        raise MisconfigurationException(
            f"{kind} optimizes manually: its `training_step` would train on the probe. {_REMEDY}"
        )
    if "dataloader_iter" in signature(module.training_step).parameters:
        raise MisconfigurationException(
            f"{kind}.training_step fetches its own batches (`dataloader_iter`), so it cannot be "
            f"run on the probe. {_REMEDY}"
        )


def batch_loss(module: LightningModule, batch: Any) -> Tensor:
    """The training loss of any LightningModule on a batch, a scalar that leaves no trace.

    ``module.batch_loss(batch)`` where it exists, as in lit_credit's rules. Else what
    ``training_step`` returns, on a copy of the batch, with nothing logged through ``self.log`` and
    buffers and attributes (torchmetrics, lists of outputs) as they were. Random numbers are
    restored too, so that two losses of one batch see the same ones.

    Raises:
        MisconfigurationException: if ``training_step`` does not return a loss.
    """
    own = getattr(module, "batch_loss", None)
    with preserved_rng():
        loss: Any = own(batch) if callable(own) else _step_loss(module, batch)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        step = "batch_loss" if callable(own) else "training_step"
        found = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise MisconfigurationException(
            f"{type(module).__name__}.{step} returns {found}, not a scalar loss. {_REMEDY}"
        )
    return loss.reshape(())


def _step_loss(module: LightningModule, batch: Any) -> Any:
    check_batch_loss(module)
    with preserved_state(module):
        for name in ("log", "log_dict"):
            setattr(module, name, lambda *_, **__: None)
        arguments = (map_tensors(batch, Tensor.clone), 0)
        loss = module.training_step(*arguments[: _positional(module.training_step)])
    return loss.get("loss") if isinstance(loss, dict) else loss


def _positional(step: Any) -> int:
    """How many of ``(batch, batch_idx)`` the step takes."""
    parameters = signature(step).parameters.values()
    if any(p.kind is Parameter.VAR_POSITIONAL for p in parameters):
        return 2
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds for p in parameters)
