"""Reading an update's parameters, statistics and loss scale, and making it change nothing."""

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lit_credit.utils.private_names import NormWithStatistics, unscales_gradients_itself

__all__ = ["loss_scale", "parameters_of", "running_statistics", "take_away"]


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """All parameters that the optimizer changes."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def running_statistics(module: LightningModule) -> list[tuple[Tensor, Tensor]]:
    """Buffers that a forward pass in training changes, each with a copy."""
    norms = [child for child in module.modules() if isinstance(child, NormWithStatistics)]
    return [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]


def loss_scale(trainer: Trainer) -> float | None:
    """The factor by which a GradScaler multiplies the loss; None without a GradScaler."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return None if scaler is None else scaler.get_scale()


def take_away(trainer: Trainer, optimizer: Optimizer) -> None:
    """Make the optimizer's next step change nothing."""
    if loss_scale(trainer) is not None and unscales_gradients_itself(optimizer):
        # The scaler checks the gradients of a fused optimizer, and skips its step if any is NaN.
        for parameter in parameters_of(optimizer):
            if parameter.grad is not None:
                parameter.grad.fill_(torch.nan)
        return
    for parameter in parameters_of(optimizer):
        parameter.grad = None
