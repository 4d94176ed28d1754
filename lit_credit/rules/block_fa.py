"""Feedback alignment from block to block."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from lit_credit.feedback.block_feedback import BlockFeedback
from lit_credit.feedback.credit import output_error
from lit_credit.feedback.direct_feedback import DirectFeedback
from lit_credit.feedback.draw import Distribution
from lit_credit.feedback.matrices import FeedbackPair
from lit_credit.rules.local import LocalRule
from lit_credit.utils.capture import Point, capture
from lit_credit.utils.random_state import run_seed

__all__ = ["BlockFA"]


class BlockFA(LocalRule):
    """Feedback alignment at the level of units: ``a_l = B_l a_{l+1}``.

    One fixed matrix per unit carries the credit past the whole unit, without an identity path for
    the skip connection; inside of a unit the gradient is exact. This is a rule of its own, not the
    feedback alignment of Lillicrap et al. (:class:`lit_credit.rules.FA`), whose matrices stand for
    single weights.

    Args:
        *args: see :class:`lit_credit.rules.LocalRule`.
        feedback: distribution of the matrices; see :func:`lit_credit.feedback.draw_feedback`.
        feedback_scale: factor on the matrices.
        feedback_seed: seed of the matrices' own generator; None takes the seed of the run.
        top: credit of the last unit: the ``exact`` gradient at its output, through the readout, or
            the output error through a ``random`` matrix.
        normalize_credit: scale each sample's credit to unit root mean square when it is delivered.
        **kwargs: see :class:`lit_credit.rules.LocalRule`.

    Reference:
        Hao, Wan, Zhai, What Accuracy and Gradient Cosine Miss, 2026, arXiv 2606.21126 (there
        called FA).
    """

    def __init__(
        self,
        *args: Any,
        feedback: Distribution = "normal",
        feedback_scale: float = 1.0,
        feedback_seed: int | None = None,
        top: Literal["exact", "random"] = "exact",
        normalize_credit: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        seed = run_seed() if feedback_seed is None else feedback_seed
        self.feedback = BlockFeedback(self.units, feedback, feedback_scale, seed, normalize_credit)
        self.top_feedback = (
            DirectFeedback(self.units[-1:], feedback, feedback_scale, seed)
            if top == "random"
            else None
        )

    def unit_credits(self, batch: Any) -> tuple[Tensor, dict[str, Tensor], Mapping[str, Tensor]]:
        """The loss, units' outputs, and the credits of the chain."""
        last = self.units[-1]
        point = Point(last, "output")
        # The unit's output is cut off, so what is captured is the leaf that the readout sees.
        with capture(self.net, [point]) as captured:
            loss, output, outputs = self.run_units(batch)
        if self.top_feedback is not None:
            error = output_error(loss, output)
            top = self.top_feedback(error, {last: outputs[last]})[last]
        else:
            (top,) = torch.autograd.grad(loss, captured[point], retain_graph=True)
        return loss, outputs, self.feedback(top, outputs)

    def feedback_matrices(self) -> dict[str, FeedbackPair]:
        """The matrix of each unit; no single weight stands beside it."""
        return {
            f"net.{self.units[int(name.removeprefix('unit_'))]}": FeedbackPair(matrix, None)
            for name, matrix in self.feedback.named_buffers()
        }
