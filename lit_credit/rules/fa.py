"""Feedback alignment."""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lit_credit.feedback import add_feedback, feedback_layers, redraw_feedback
from lit_credit.feedback.draw import Distribution
from lit_credit.feedback.matrices import FeedbackPair
from lit_credit.headlines import Look
from lit_credit.rules.base import CreditRule
from lit_credit.rules.net_checks import check_no_energy
from lit_credit.tasks import Task
from lit_credit.utils.colors import GREEN
from lit_credit.utils.random_state import run_seed
from lit_credit.utils.ranges import check_range

__all__ = ["FA"]


class FA(CreditRule):
    """Feedback alignment: each weight matrix sends the error back through its own fixed matrix.

    Where backpropagation has ``delta W``, feedback alignment has ``delta B``; everything without a
    weight matrix (activations, norms, attention scores) keeps its exact backward.

    Other tools that differentiate the net also go back through B: captum's attributions, saliency
    maps and adversarial attacks show the credit, not the gradient. For the gradient, run forward
    and backward inside ``with lit_credit.feedback.exact_backward(rule.net):``.

    See :class:`lit_credit.rules.CreditRule` for the other arguments.

    Args:
        feedback: distribution of the matrices; see :func:`lit_credit.feedback.draw_feedback`.
        feedback_scale: factor on the matrices.
        feedback_seed: seed of the matrices' own generator; None takes the seed of the run.
        feedback_sign: ``weight`` gives every entry the current sign of its weight. With
            ``feedback`` weight_std this is uSF, ``B = std(W_0) sign(W)`` with the standard
            deviation of each layer's initial weights; with ``feedback`` normal it is frSF.
        redraw: draw new matrices at every step; with ``feedback_sign`` weight this is brSF.
        leave_exact: names or patterns of submodules or parameters that keep the true backward,
            because they cannot or should not be converted.

    Raises:
        ValueError: if the net has weights that cannot be converted; the error lists them.

    Reference:
        Lillicrap, Cownden, Tweed, Akerman, Random synaptic feedback weights support error
        backpropagation for deep learning, 2016, doi:10.1038/ncomms13276. Sign-symmetric family:
        Liao, Leibo, Poggio, How Important is Weight Symmetry in Backpropagation?, 2016, arXiv
        1510.05067. A scale of uSF by the layer's initialization: Sanfiz, Akrout, Benchmarking
        the Accuracy and Robustness of Feedback Alignment Algorithms, 2021, arXiv 2108.13446.
    """

    look = Look(order=1, color=GREEN)

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
        feedback: Distribution = "normal",
        feedback_scale: float = 1.0,
        feedback_seed: int | None = None,
        feedback_sign: Literal["random", "weight"] = "random",
        redraw: bool = False,
        leave_exact: list[str] | None = None,
    ) -> None:
        check_range(feedback_scale=feedback_scale, feedback_seed=feedback_seed)
        check_no_energy(net, type(self).__name__)
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
        self.feedback_seed = run_seed() if feedback_seed is None else feedback_seed
        self.redraw = redraw
        add_feedback(
            self.net,
            distribution=feedback,
            scale=feedback_scale,
            sign=feedback_sign,
            seed=self.feedback_seed,
            leave_exact=leave_exact or (),
        )

    def update(self, batch: Any) -> Tensor:
        """Redraw the matrices if ``redraw`` is set, then make one update."""
        if self.redraw:
            # The seed includes the step, so that a resumed run draws the same matrices.
            redraw_feedback(self.net, self.feedback_seed + self.trainer.global_step + 1)
        return super().update(batch)

    def feedback_matrices(self) -> dict[str, FeedbackPair]:
        """Each B with the weight that it stands for."""
        return {f"net.{name}": pair for name, pair in feedback_layers(self.net).items()}
