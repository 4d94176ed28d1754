"""Direct feedback alignment whose matrices learn by the rule of Kolen and Pollack."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lit_credit.feedback.direct_feedback import ErrorShape
from lit_credit.headlines import Look
from lit_credit.rules.dfa import DFA
from lit_credit.tasks import Task
from lit_credit.utils.colors import AMBER

__all__ = ["DirectKolenPollack"]


class DirectKolenPollack(DFA):
    """Direct Kolen-Pollack: the matrices of DFA learn from the product of activity and error.

    ``a_l = e B_l^T`` as under DFA, and the gradient of B_l is ``h_l^T e``, summed over the rows of
    a batch, with the unit's output h_l. For the last unit this is the gradient of the readout's
    weight, so that B tends to it as under :class:`lit_credit.rules.KolenPollack`; for the units
    below it is the same rule without a weight of that shape. B is a parameter of the optimizer's
    group ``feedback``. It starts at 0, so that only the readout learns in the first step; the
    authors decay it by 1e-6: ``group_options: {feedback: {weight_decay: 1.0e-6}}``.

    Learns digits on an MLP with AdamW at 1e-3; configs/rules/direct_kolen_pollack.yaml.

    See :class:`lit_credit.rules.DFA` for the other arguments.

    Args:
        feedback_scale: factor on the matrices as they start; 0 starts at zero.

    Reference:
        Webster, Choi, Ahn, Learning the Connections in Direct Feedback Alignment, 2021,
        openreview zgGmAx9ZcY.
    """

    look = Look(order=5, color=AMBER)
    learns_feedback = True

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
        normalize_credit: bool = False,
        stray: Literal["error", "freeze", "train"] = "error",
        scale_penalty: float = 0.0,
        group_options: dict[str, dict[str, Any]] | None = None,
        compile: bool | dict[str, Any] = False,
        feedback_scale: float = 0.0,
        feedback_seed: int | None = None,
        shared_feedback: bool | dict[str, str] = False,
        error: ErrorShape = "auto",
        rank: int | None = None,
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
            normalize_credit=normalize_credit,
            stray=stray,
            scale_penalty=scale_penalty,
            group_options=group_options,
            compile=compile,
            feedback_scale=feedback_scale,
            feedback_seed=feedback_seed,
            shared_feedback=shared_feedback,
            error=error,
            rank=rank,
        )

    def feedback_gradients(
        self, error: Tensor, outputs: Mapping[str, Tensor], batch: Any
    ) -> dict[nn.Parameter, Tensor]:
        """``h_l^T e``."""
        return {self.learned_matrix(): self.feedback.gradient(error, outputs)}
