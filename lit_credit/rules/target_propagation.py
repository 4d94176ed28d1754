"""Difference target propagation: targets come back through learned inverses."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lit_credit.feedback.inverses import InverseActivation, Inverses
from lit_credit.headlines import Look
from lit_credit.rules.inference import InferenceRule, Inferred, LearningPass
from lit_credit.rules.step_noise import StepNoise
from lit_credit.tasks import Task
from lit_credit.utils.colors import GREEN
from lit_credit.utils.random_state import run_seed
from lit_credit.utils.ranges import check_choice, check_range
from lit_credit.utils.short_text import choice

__all__ = ["TargetPropagation"]


class TargetPropagation(StepNoise, InferenceRule):
    r"""Difference target propagation: each unit learns to hand on its target.

    The last unit's target is a step down the loss of each sample: ``t_L = h_L - target_lr dL/dh``.
    Targets come back through mappings G_l that approximate the inverses of the units, corrected by
    what G_l does to the outputs themselves: ``t_l = h_l + G_l(t_{l+1}) - G_l(h_{l+1})``. The update
    of unit l is the gradient of ``1/2 |f_l - t_l|^2``, averaged over samples, so that its credit is
    ``(h_l - t_l) / N``. The readout learns from the true gradient.

    The mappings learn, in the same step, to undo the units on noisy states: the gradient is that of
    ``1/2 |G_l(f_{l+1}(h_l + s)) - (h_l + s)|^2`` with noise s of standard deviation
    ``reconstruction_noise``, averaged over samples. They are parameters of the optimizer's group
    ``feedback``. ``learned_feedback: false`` leaves them at their random weights (fixed-weight
    DTP): only their difference is used, so that a G that is no inverse still carries a signal.

    A unit's target comes from the unit that follows alone. In a residual net, where what a block
    adds also reaches later blocks directly, those paths carry no target.

    Learns digits on an MLP with AdamW at 1e-3 (configs/rules/target_propagation.yaml), and MNIST.

    See :class:`lit_credit.rules.cut.CutRule` for the other arguments.

    Args:
        target_lr: step of the first target. Credits are proportional to it as long as the mappings
            are about linear; under AdamW their size hardly matters.
        learned_feedback: whether the mappings learn.
        reconstruction_noise: standard deviation of the noise.
        feedback_activation: activation of the mappings.
        feedback_seed: seed of the mappings and of the noise; None takes the seed of the run.

    Raises:
        ValueError: if an argument is out of range; at the first batch, if a mapping would not fit
            into memory, or is not defined between the outputs of two units; if a unit does not run.

    Reference:
        Lee, Zhang, Fischer, Bengio, Difference Target Propagation, 2015, arXiv 1412.7525,
        equations 15 and 9. Fixed weights: Shibuya, Inoue, Kawakami, Sato, Fixed-Weight Difference
        Target Propagation, 2023, arXiv 2212.10352.
    """

    look = Look(order=11, color=GREEN)
    chained = True
    needs_derivative = False

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
        stray: Literal["error", "freeze", "train"] = "error",
        scale_penalty: float = 0.0,
        group_options: dict[str, dict[str, Any]] | None = None,
        target_lr: float = 0.1,
        learned_feedback: bool = True,
        reconstruction_noise: float = 0.1,
        feedback_activation: InverseActivation = "identity",
        feedback_seed: int | None = None,
    ) -> None:
        check_range(above=0, target_lr=target_lr)
        check_range(0, reconstruction_noise=reconstruction_noise)
        check_range(feedback_seed=feedback_seed)
        check_choice(get_args(InverseActivation), feedback_activation=feedback_activation)
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
            stray=stray,
            scale_penalty=scale_penalty,
            group_options=group_options,
        )
        self.target_lr = target_lr
        self.learned_feedback = learned_feedback
        self.reconstruction_noise = reconstruction_noise
        self.noise_seed = run_seed() if feedback_seed is None else feedback_seed
        self.inverses = Inverses(
            self.units, feedback_activation, self.noise_seed, learned=learned_feedback
        )

    @property
    def error_at_unit(self) -> bool:
        """The first target is a step down the gradient at the last unit's output."""
        return True

    @property
    def builds(self) -> bool:
        """The shapes of the mappings depend on the units' outputs."""
        return True

    def build(self, outputs: Mapping[str, Tensor], output: Tensor) -> None:
        """Draw the mappings that are not there yet."""
        self.inverses.make(outputs)

    def extra_parameters(self) -> dict[str, list[nn.Parameter]]:
        """The mappings are the group ``feedback``."""
        return {"feedback": list(self.inverses.parameters())}

    def credits(
        self, batch: Any, inferred: Inferred, learning: LearningPass
    ) -> Mapping[str, Tensor]:
        """``(h_l - t_l) / N``."""
        outputs = learning.outputs
        names = list(outputs)
        if names != self.units:
            idle = [name for name in self.units if name not in outputs]
            raise ValueError(
                f"units {choice(idle)} do not run in this step, but a target comes back through "
                "every unit. Take them out of `units`."
            )
        gaps = {names[-1]: self.target_lr * learning.rows * learning.error()}  # h_l - t_l
        with torch.no_grad():
            for name, after in reversed(list(pairwise(names))):
                h, above = outputs[name], outputs[after]
                undone = self.inverses(name, above, h)
                gaps[name] = undone - self.inverses(name, above - gaps[after], h)
        return {name: gaps[name] / learning.rows for name in names}

    def auxiliary_loss(self, batch: Any, learning: LearningPass) -> Tensor | None:
        """What the mappings do not undo on noisy states, averaged over samples."""
        if not self.learned_feedback:
            return None
        noisy: dict[str, Tensor] = {}
        made: dict[str, Tensor] = {}  # what the units make of the noisy states
        generator = self.step_generator(stream=0)

        def disturb(name: str, value: Tensor) -> Tensor:
            clean = learning.outputs[name]
            noise = self.noise_like(clean, generator)
            made[name], noisy[name] = value, clean + self.reconstruction_noise * noise
            return self.handed_on(name, noisy[name])

        self.run_silently(batch, disturb)
        total = learning.loss.new_zeros(())
        for name, after in pairwise(made):
            undone = self.inverses(name, made[after], noisy[name])
            total = total + 0.5 * (undone - noisy[name]).square().sum() / learning.rows
        return total
