"""The learning rate of parameters, and how far it may be from instability."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["LearningRate", "learning_rate"]


class LearningRate(NamedTuple):
    """The learning rate of some parameters.

    Attributes:
        rate: the largest of their learning rates; NaN if no optimizer has them.
        optimizer: class name of the optimizer; "" if there is none.
        limit: the product of curvature and rate at which steps on a quadratic loss begin to
            diverge; NaN if the optimizer is not known to have one.
    """

    rate: float
    optimizer: str
    limit: float


def learning_rate(trainer: Any, parameters: Iterable[Tensor]) -> LearningRate:
    """The learning rate by which the Trainer's optimizers move parameters.

    Args:
        trainer: a Trainer; None, or one without optimizers, knows no rate.
        parameters: the parameters.
    """
    wanted = set(map(id, parameters))
    groups = [
        (float(group["lr"]), optimizer, group)
        for optimizer in getattr(trainer, "optimizers", None) or ()
        for group in optimizer.param_groups
        if "lr" in group and wanted & set(map(id, group["params"]))
    ]
    if not groups:
        return LearningRate(math.nan, "", math.nan)
    rate, optimizer, group = max(groups, key=lambda found: found[0])
    return LearningRate(rate, type(optimizer).__name__, _limit(optimizer, group))


def _limit(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> float:
    """The limit of gradient descent with momentum, on a quadratic loss."""
    if type(optimizer) is not torch.optim.SGD or group["dampening"] or group["maximize"]:
        return math.nan
    momentum = float(group["momentum"])
    return 2 * (1 + momentum) / (1 + 2 * momentum if group["nesterov"] else 1)
