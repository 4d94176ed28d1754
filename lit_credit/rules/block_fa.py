"""Feedback alignment from block to block."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Size, Tensor, nn

from lit_credit.feedback.block_feedback import BlockFeedback, MapFeedback
from lit_credit.feedback.credits import Credits, check_rows
from lit_credit.feedback.direct_feedback import DirectFeedback
from lit_credit.feedback.draw import Distribution
from lit_credit.feedback.matrices import FeedbackPair
from lit_credit.headlines import Look
from lit_credit.rules.local import LocalRule
from lit_credit.tasks import Task
from lit_credit.utils.colors import PURPLE
from lit_credit.utils.random_state import run_seed
from lit_credit.utils.ranges import check_range

__all__ = ["BlockFA"]


class BlockFA(LocalRule):
    """Feedback alignment at the level of units: ``a_l = B_l a_{l+1}``.

    One fixed matrix per unit carries the credit past the whole unit, without an identity path for
    the skip connection; inside a unit the gradient is exact. This rule is not the feedback
    alignment of Lillicrap et al. (:class:`lit_credit.rules.FA`), whose matrices stand for single
    weights. A unit that is skipped in a step counts as an identity: ``a_l = B_l a_{l+2}``. As under
    every local rule, a unit of a flat net should be a layer with its activation: ``fc1+act1``.

    See :class:`lit_credit.rules.LocalRule` for the other arguments.

    Args:
        feedback: distribution of the matrices; see :func:`lit_credit.feedback.draw_feedback`.
        feedback_scale: factor on the matrices.
        feedback_seed: seed of the matrices' own generator; None takes the seed of the run.
        top: credit of the last unit: the ``exact`` gradient at its output, through the readout, or
            the output error through a ``random`` matrix.
        feedback_maps: matrices between feature maps: ``per_channel``, ``channels_last`` or
            ``dense``; see :class:`lit_credit.feedback.BlockFeedback`.

    Reference:
        Hao, Wan, Zhai, What Accuracy and Gradient Cosine Miss, 2026, arXiv 2606.21126 (there
        called FA).
    """

    chained = True
    look = Look(order=2, color=PURPLE)

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
        recompute: bool = False,
        scale_penalty: float = 0.0,
        group_options: dict[str, dict[str, Any]] | None = None,
        compile: bool | dict[str, Any] = False,
        feedback: Distribution = "normal",
        feedback_scale: float = 1.0,
        feedback_seed: int | None = None,
        top: Literal["exact", "random"] = "exact",
        feedback_maps: MapFeedback = "per_channel",
    ) -> None:
        check_range(feedback_scale=feedback_scale, feedback_seed=feedback_seed)
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
            recompute=recompute,
            scale_penalty=scale_penalty,
            group_options=group_options,
            compile=compile,
        )
        seed = run_seed() if feedback_seed is None else feedback_seed
        self.feedback = BlockFeedback(
            self.units, feedback, feedback_scale, seed, maps=feedback_maps
        )
        self.feedback.net_size = sum(weight.numel() for weight in self.net.parameters())
        self.top_feedback = (
            DirectFeedback(self.units[-1:], feedback, feedback_scale, seed)
            if top == "random"
            else None
        )

    @property
    def error_at_unit(self) -> bool:
        """Whether the credit of the last unit is the exact gradient, not a random one."""
        return self.top_feedback is None

    def send(
        self, error: Tensor, shapes: Mapping[str, Size], scale: Tensor | float, batch: Any
    ) -> Credits:
        """The credits ``a_l = B_l a_{l+1}``, computed from the last unit to the first."""
        if self.top_feedback is not None and shapes:
            last = self.units[-1]
            top = next(name for name in reversed(self.units) if name in shapes)
            check_rows(top, shapes[top], error.shape, "error")
            error = self.top_feedback(error, {last: shapes[top]}).dense(last)
        credits: Credits = self.feedback(error, shapes, scale)
        return credits

    def feedback_matrices(self) -> dict[str, FeedbackPair]:
        """The matrix of each unit, without a weight: the matrix stands for the whole unit."""
        return {
            self.credit_units[int(name.removeprefix("unit_"))]: FeedbackPair(matrix, None)
            for name, matrix in self.feedback.named_buffers()
        }
