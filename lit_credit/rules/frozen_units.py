"""Backpropagation with some units frozen at their initial values."""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from lit_credit.headlines import Look
from lit_credit.inspect.unit_names import expand_units, unit_modules
from lit_credit.rules.base import CreditRule
from lit_credit.tasks import Task
from lit_credit.utils.colors import GREY
from lit_credit.utils.names import submodule_names
from lit_credit.utils.short_text import choice

__all__ = ["FrozenUnits"]


class FrozenUnits(CreditRule):
    """Backpropagation with the parameters of some units kept at their initial values.

    This is the baseline for depth: a rule that teaches deep units something useful beats the same
    net with those units frozen. Gradients still pass through frozen units.

    See :class:`lit_credit.rules.CreditRule` for the other arguments.

    Args:
        frozen: names or patterns of submodules of ``net``; None freezes every unit.

    Raises:
        ValueError: if there is nothing to freeze, or a pattern matches nothing.

    Reference:
        Hao, Wan, Zhai, What Accuracy and Gradient Cosine Miss, 2026, arXiv 2606.21126 (depth
        utility).
    """

    exact_credit = True
    look = Look(order=100, color=GREY, baseline=True)

    def __init__(
        self,
        net: nn.Module,
        task: Task,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
        clip_norm: float | None = None,
        clip_per_unit: float | dict[str, float] | None = None,
        units: list[str] | None = None,
        readout: list[str] | None = None,
        updates_per_step: int = 1,
        *,
        group_options: dict[str, dict[str, Any]] | None = None,
        compile: bool | dict[str, Any] = False,
        frozen: list[str] | None = None,
    ) -> None:
        super().__init__(
            net=net,
            task=task,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            lr_interval=lr_interval,
            clip_norm=clip_norm,
            clip_per_unit=clip_per_unit,
            units=units,
            readout=readout,
            updates_per_step=updates_per_step,
            group_options=group_options,
            compile=compile,
        )
        names = submodule_names(self.net)
        self.frozen = self.units if frozen is None else expand_units(frozen, names, "frozen")
        if not self.frozen:
            raise ValueError(
                f"`frozen` names nothing, and the net declares no units. Choose from: "
                f"{choice(names)}."
            )
        for name in self.frozen:
            for part in unit_modules(self.net, name):
                part.requires_grad_(False)
