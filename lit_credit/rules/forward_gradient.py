"""Forward gradients: directional derivatives along random directions."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.func import functional_call

from lit_credit.feedback.attached import attached
from lit_credit.feedback.credits import check_rows
from lit_credit.headlines import Look
from lit_credit.rules.extra_passes import extra_pass, full_precision
from lit_credit.rules.inference import InferenceRule, Inferred, LearningPass
from lit_credit.rules.node_noise import NodeNoise, dual, forward_derivative, parts_of_dual
from lit_credit.tasks import Task
from lit_credit.utils.colors import GREEN
from lit_credit.utils.random_state import run_seed
from lit_credit.utils.ranges import check_choice, check_range, check_sizes

__all__ = ["ForwardGradient"]


class ForwardGradient(NodeNoise, InferenceRule):
    r"""Forward gradient: the slope of the loss along a random direction, times that direction.

    The direction v ~ N(0, 1) is drawn anew in every step, so that the mean of the update is the
    gradient; its variance grows with the numbers that are perturbed.

    - ``perturb: activities``: every unit l gets noise v_l at its output, in one pass. The credit is
      ``a_l = (e . d) v_l`` for each sample, with the error e at the net's output and the effect
      ``d = sum_l J_l v_l`` of all noises. Inside a unit the gradient is exact, and the readout
      learns from the true gradient.
    - ``perturb: weights``: the whole net gets a direction v of its parameters, and the update is
      ``(dL/dW . v) v``. Units do not matter, and no graph is kept. A parameter that does not run
      in a step moves at random.

    ``derivative: exact`` takes slopes by forward differentiation. ``derivative: difference`` takes
    the central difference of two passes at ``epsilon`` along the direction: under ``weights`` this
    is SPSA (MeZO is SPSA with SGD), under ``activities`` it is node perturbation. These passes run
    in float32 under mixed precision.

    Under ``activities`` a BatchNorm biases the update: the effect of a sample's noise on other
    samples is left out. Learns digits on an MLP: ``activities`` with AdamW at 1e-3
    (configs/rules/forward_gradient.yaml); ``weights`` and SPSA need many more steps.

    See :class:`lit_credit.rules.cut.CutRule` for the other arguments.

    Args:
        perturb: what is perturbed.
        derivative: how slopes are taken.
        epsilon: length of the difference, in standard deviations of the direction's entries.
        directions: directions that an update averages over; the time grows with them.
        noise_seed: seed of the directions; None takes the seed of the run.

    Raises:
        ValueError: if an argument is out of range, or ``scale_penalty`` or ``stray`` is set under
            ``weights``; at the first batch, if the net answers otherwise when it runs again, if an
            operation has no forward derivative, or if slopes are differences and the weights have
            half precision.

    Reference:
        Baydin, Pearlmutter, Syme, Wood, Torr, Gradients without Backpropagation, 2022,
        arXiv 2202.08587, section 3.2 (weights). Ren, Kornblith, Liao, Hinton, Scaling Forward
        Gradient With Local Losses, 2022, arXiv 2210.03310, section 3 (activities). Spall,
        Multivariate Stochastic Approximation Using a Simultaneous Perturbation Gradient
        Approximation, 1992, IEEE TAC 37; Malladi et al., Fine-Tuning Language Models with Just
        Forward Passes, 2023, arXiv 2305.17333, definition 1 (difference).
    """

    look = Look(order=10, color=GREEN)
    needs_derivative = False
    without_derivative = "Replace the operation, or set `derivative: difference`."
    small_differences = False  # where they are taken, the passes see to it

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
        perturb: Literal["activities", "weights"] = "activities",
        derivative: Literal["exact", "difference"] = "exact",
        epsilon: float = 1e-3,
        directions: int = 1,
        noise_seed: int | None = None,
    ) -> None:
        check_choice(["activities", "weights"], perturb=perturb)
        check_choice(["exact", "difference"], derivative=derivative)
        check_range(above=0, epsilon=epsilon)
        check_sizes(directions=directions)
        check_range(noise_seed=noise_seed)
        if stray != "error" and perturb == "weights":
            raise ValueError(
                f"`stray` is {stray!r}, but with `perturb` 'weights' the whole net is perturbed. "
                "Leave it out, and freeze parameters by `requires_grad_(False)`."
            )
        if scale_penalty and perturb == "weights":
            raise ValueError(
                f"`scale_penalty` is {scale_penalty}, which needs the graphs of units, but with "
                "`perturb` 'weights' there are none. Set it to 0."
            )
        self.perturb = perturb  # read by `_check_units`
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
        self.epsilon = epsilon if derivative == "difference" else None
        self.directions = directions
        self.noise_seed = run_seed() if noise_seed is None else noise_seed

    def surrogate(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The loss, and the scalar whose gradient is the update."""
        if self.perturb == "activities":
            return super().surrogate(batch)
        self.check_repeats(batch)
        parameters = {n: p for n, p in self.named_parameters() if p.requires_grad}
        loss, gradients = self._along_weights(batch, parameters)
        self._trained.update(self.units)
        return loss, attached(loss, list(parameters.values()), gradients)

    def credit(self, batch: Any) -> dict[str, Tensor]:
        """The credit of each unit; none where the weights are perturbed."""
        return super().credit(batch) if self.perturb == "activities" else {}

    # Activities

    def infer(self, batch: Any) -> Inferred:
        """The noises, and their effects."""
        return Inferred(found=[self.effect(batch, i, self.epsilon) for i in range(self.directions)])

    def credits(
        self, batch: Any, inferred: Inferred, learning: LearningPass
    ) -> Mapping[str, Tensor]:
        """``(e . d) v_l``, averaged over directions."""
        error = learning.error()
        found = {name: torch.zeros_like(output) for name, output in learning.outputs.items()}
        for name, output in found.items():
            check_rows(name, output.shape, error.shape, "error")
        for noise, effect in inferred.found:
            slopes = (error * effect).flatten(1).sum(1) / self.directions
            for name, credit in found.items():
                v = noise[name]
                found[name] = credit + slopes.reshape(-1, *(1,) * (v.dim() - 1)) * v
        return found

    # Weights

    def _along_weights(
        self, batch: Any, parameters: Mapping[str, Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """The loss, and the estimate of its gradient by each parameter."""
        gradients = [torch.zeros_like(value) for value in parameters.values()]
        total = torch.zeros((), device=self.device)
        for index in range(self.directions):
            generator = self.step_generator(index)
            # On the CPU and in float32: the same direction on every machine and in every precision.
            direction = [
                torch.randn(value.shape, generator=generator, dtype=torch.float32).to(value)
                for value in parameters.values()
            ]
            # The last pass is the one that updates the statistics of norms.
            silent = index < self.directions - 1
            with extra_pass(self.net, self.task) if silent else nullcontext():
                loss, slope = self._slope(batch, parameters, direction)
            total = total + loss / self.directions
            for gradient, v in zip(gradients, direction, strict=True):
                gradient += (slope / self.directions).to(v.dtype) * v
        return total, gradients

    def _slope(
        self, batch: Any, parameters: Mapping[str, Tensor], direction: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The loss, and its slope along a direction."""
        pairs = list(zip(parameters.items(), direction, strict=True))
        if self.epsilon is None:
            with forward_derivative(self.without_derivative, self.net, self.device.type):
                tangents = {name: dual(value.detach(), v) for (name, value), v in pairs}
                loss, slope = parts_of_dual(self._loss_with(tangents, batch))
            return loss, torch.zeros_like(loss) if slope is None else slope
        step = self.epsilon
        kind = type(self).__name__
        with torch.no_grad(), full_precision(kind, self.net, self.device.type):
            with extra_pass(self.net, self.task):
                down = self._loss_with({name: w - step * v for (name, w), v in pairs}, batch)
            up = self._loss_with({name: w + step * v for (name, w), v in pairs}, batch)
        return (up + down) / 2, (up - down) / (2 * step)

    def _loss_with(self, parameters: dict[str, Tensor], batch: Any) -> Tensor:
        """The loss with other values of the parameters."""
        output = functional_call(self, parameters, self.task.inputs(batch))
        return self.task.loss(output, batch)

    def _check_units(self) -> None:
        if self.perturb == "activities":
            super()._check_units()
        else:
            self._check_uncompiled(self.net)
