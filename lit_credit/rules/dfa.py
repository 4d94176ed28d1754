"""Direct feedback alignment."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Size, Tensor, nn

from lit_credit.feedback.credits import Credits
from lit_credit.feedback.direct_feedback import DirectFeedback, ErrorShape
from lit_credit.feedback.draw import Distribution
from lit_credit.feedback.matrices import FeedbackPair
from lit_credit.headlines import Look
from lit_credit.inspect.unit_names import unit_aliases
from lit_credit.rules.local import LocalRule
from lit_credit.tasks import Task
from lit_credit.utils.colors import ORANGE
from lit_credit.utils.random_state import run_seed
from lit_credit.utils.ranges import check_range

__all__ = ["DFA"]


class DFA(LocalRule):
    """Direct feedback alignment: the output error reaches every unit through a fixed matrix.

    ``a_l = e B_l^T``, where e is the derivative of the loss by the net's output. Inside a unit the
    gradient is exact. If a unit is a layer with its activation (``units: [fc1+act1, fc2+act2]``,
    or ``[fc1->, fc2->]`` where activations are functions), the update is equation 7 of the
    reference, ``delta_l = (B_l e) * f'(z_l)``.

    See :class:`lit_credit.rules.LocalRule` for the other arguments.

    Args:
        feedback: distribution of the matrices; see :func:`lit_credit.feedback.draw_feedback`.
        feedback_scale: factor on the matrices.
        feedback_seed: seed of the matrices' own generator; None takes the seed of the run.
        shared_feedback: True gives all units the same matrix; a dict maps a unit to the unit whose
            matrix it uses, for example ``{embed: blocks.0}``.
        error: shape of the error that the units see; see
            :class:`lit_credit.feedback.DirectFeedback`. For feature maps under plain SGD take
            ``feedback`` xavier, or a tenth of BP's learning rate: with the default feedback a LeNet
            diverges under SGD at 0.01. It learns under AdamW; docs/other_projects.md has the
            numbers.

    Reference:
        Nokland, Direct Feedback Alignment Provides Learning in Deep Neural Networks, 2016,
        arXiv 1609.01596, equation 7.
    """

    look = Look(order=3, color=ORANGE)

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
        feedback: Distribution = "normal",
        feedback_scale: float = 1.0,
        feedback_seed: int | None = None,
        shared_feedback: bool | dict[str, str] = False,
        error: ErrorShape = "auto",
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
        )
        if isinstance(shared_feedback, dict):
            known = unit_aliases(self.units)
            shared_feedback = {
                known.get(name, name): known.get(other, other)
                for name, other in shared_feedback.items()
            }
        self.feedback = DirectFeedback(
            self.units,
            distribution=feedback,
            scale=feedback_scale,
            seed=run_seed() if feedback_seed is None else feedback_seed,
            shared=shared_feedback,
            error=error,
        )

    def send(
        self, error: Tensor, shapes: Mapping[str, Size], scale: Tensor | float, batch: Any
    ) -> Credits:
        """``e B_l^T`` in the shapes of the units' outputs."""
        credits: Credits = self.feedback(error, shapes, scale)
        return credits

    def feedback_matrices(self) -> dict[str, FeedbackPair]:
        """The last unit's matrix with the weight of the readout, if one Linear; else all of it."""
        matrix = self.feedback.matrix
        if matrix is None or not self.feedback.is_drawn(self.units[-1]):
            return {}
        last = self.net.get_submodule(self.readout[-1]) if len(self.readout) == 1 else None
        # The last rows belong to the last unit, unless it uses another unit's matrix.
        ends = list(dict.fromkeys(map(self.feedback.source.get, self.units)))[-1] == self.units[-1]
        if isinstance(last, nn.Linear) and len(matrix) >= last.in_features and ends:
            own = matrix[-last.in_features :]  # (d, C)
            if own.shape == last.weight.T.shape:
                return {self.credit_units[-1]: FeedbackPair(own, last.weight.T)}
        return {"feedback": FeedbackPair(matrix, None)}
