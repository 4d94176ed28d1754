"""Direct feedback alignment whose matrices learn the Jacobian from forward gradients."""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lit_credit.feedback.credits import rows_of
from lit_credit.feedback.direct_feedback import ErrorShape
from lit_credit.feedback.draw import Distribution
from lit_credit.headlines import Look
from lit_credit.rules.dfa import DFA
from lit_credit.rules.node_noise import NodeNoise
from lit_credit.tasks import Task
from lit_credit.utils.colors import SKY
from lit_credit.utils.random_state import run_seed

__all__ = ["FDFA"]


class FDFA(NodeNoise, DFA):
    """Forward direct feedback alignment: the matrices of DFA learn the Jacobian of the net.

    ``a_l = e B_l^T`` as under DFA. A second forward pass carries tangents: noise v_l ~ N(0, 1) is
    added to the tangent of the output of every unit l, and d is what arrives at the net's output,
    ``d = sum_l J_l v_l``. The gradient of B_l is ``B_l - mean(v_l d^T)``, whose fixed point is the
    Jacobian of the output by the unit's output, averaged over the data. B is a parameter of the
    optimizer's group ``feedback``; with plain SGD its learning rate is the rate of a running mean.
    In a sequence (N, T, C) noise and effect are compared position by position.

    The second pass leaves no trace: neither in buffers, such as the statistics of a BatchNorm, nor
    in random states. Learns digits on an MLP with AdamW at 1e-3;
    configs/rules/fdfa.yaml.

    See :class:`lit_credit.rules.DFA` for the other arguments.

    Raises:
        ValueError: at the first batch, if an operation of the net has no forward derivative.

    Reference:
        Bacho, Chu, Low-Variance Forward Gradients using Direct Feedback Alignment and Momentum,
        2022, arXiv 2212.07282.
    """

    look = Look(order=6, color=SKY)
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
        recompute: bool = False,
        scale_penalty: float = 0.0,
        group_options: dict[str, dict[str, Any]] | None = None,
        compile: bool | dict[str, Any] = False,
        feedback: Distribution = "normal",
        feedback_scale: float = 1.0,
        feedback_seed: int | None = None,
        error: ErrorShape = "auto",
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
            recompute=recompute,
            scale_penalty=scale_penalty,
            group_options=group_options,
            compile=compile,
            feedback=feedback,
            feedback_scale=feedback_scale,
            feedback_seed=feedback_seed,
            error=error,
        )
        self.noise_seed = run_seed() if feedback_seed is None else feedback_seed

    def surrogate(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The loss, and the scalar whose gradient is the update of the net and of the matrices."""
        # First: it writes buffers that the graph of the loss keeps, such as those of batch norm.
        noise, effect = self.effect(batch, stream=1)
        loss, scalar = super().surrogate(batch)
        matrix = self.learned_matrix()
        estimate = self.feedback.gradient(effect, noise) / rows_of(effect.shape)
        return loss, scalar + (matrix * (matrix.detach() - estimate.to(matrix.dtype))).sum()
