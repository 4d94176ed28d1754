"""Feedback alignment whose matrices learn with the weights."""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.optim import Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

from lit_credit.feedback.draw import Distribution
from lit_credit.feedback.layers import FeedbackLayer
from lit_credit.feedback.learned import feedback_parameters, learn_feedback
from lit_credit.feedback.matrices import feedback_names
from lit_credit.headlines import Look
from lit_credit.rules.fa import FA
from lit_credit.tasks import Task
from lit_credit.utils.colors import AMBER

__all__ = ["KolenPollack"]

_ADAPTIVE = (Adadelta, Adagrad, Adam, Adamax, NAdam, RAdam, RMSprop)


class KolenPollack(FA):
    """Kolen-Pollack: feedback matrices get the gradients of the weights that they stand for.

    ``dL/dB = dL/dW``, so that the scalar of feedback alignment gains ``<B, stopgrad(dL/dW)>``. B is
    a parameter of the optimizer's group ``feedback``. With the same steps and the same decay,
    ``W - B`` shrinks by ``1 - lr * weight_decay`` in each step, and B tends to W without a copy of
    it: exactly under SGD, with momentum too, and under AdamW. Under Adam and its kin with
    ``weight_decay`` inside the gradient it does not; a warning says so. Without decay ``W - B``
    stays, and the angle falls because W and B grow together; the authors' repository trains so.
    Group options that differ between ``feedback`` and the weights give up the identity.

    Clipping scales B's gradient by the factor of its weight, and B counts in no norm. Learns
    digits, MNIST, a character GPT, and a copying task that fixed feedback does not learn
    (docs/rules.md).

    See :class:`lit_credit.rules.FA` for the other arguments.

    Raises:
        ValueError: if the net has weights that cannot be converted; the error lists them.

    Reference:
        Akrout, Wilson, Humphreys, Lillicrap, Tweed, Deep Learning without Weight Transport, 2019,
        arXiv 1904.05391, equations 16 and 17. Kolen, Pollack, Backpropagation without weight
        transport, 1994, doi:10.1109/ICNN.1994.374486.
    """

    look = Look(order=4, color=AMBER)

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
        leave_exact: list[str] | None = None,
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
            feedback=feedback,
            feedback_scale=feedback_scale,
            feedback_seed=feedback_seed,
            leave_exact=leave_exact,
        )
        learn_feedback(self.net)

    def configure_optimizers(self) -> Any:
        """Keep B of frozen weights; warn of a decay under which B does not tend to W."""
        for layer in (m for m in self.net.modules() if isinstance(m, FeedbackLayer)):
            for weight, feedback in feedback_names(layer).items():
                getattr(layer, feedback).requires_grad_(getattr(layer, weight).requires_grad)
        found = super().configure_optimizers()
        optimizer = found["optimizer"] if isinstance(found, dict) else found
        if _decays_inside(optimizer, {id(p) for p in feedback_parameters(self.net).values()}):
            rank_zero_warn(
                f"KolenPollack: {type(optimizer).__name__} adds `weight_decay` to the gradient, "
                "where its step is divided by the gradient's size, so W - B does not shrink by "
                "1 - lr * weight_decay. Take AdamW, or SGD."
            )
        return found


def _decays_inside(optimizer: Optimizer, feedback: set[int]) -> bool:
    """Whether an adaptive optimizer of torch decays feedback through the gradient."""
    if not isinstance(optimizer, _ADAPTIVE) or isinstance(optimizer, AdamW):
        return False
    return any(
        group.get("weight_decay", 0) and not group.get("decoupled_weight_decay")
        for group in optimizer.param_groups
        if any(id(p) in feedback for p in group["params"])
    )
