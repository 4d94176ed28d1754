"""Predictive coding: states relax to the least energy, then each unit learns to predict its own."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lit_credit.feedback.unit_checks import unreached
from lit_credit.headlines import Look
from lit_credit.rules.extra_passes import extra_pass
from lit_credit.rules.inference import InferenceRule, Inferred, LearningPass
from lit_credit.tasks import Task
from lit_credit.utils.colors import PURPLE
from lit_credit.utils.ranges import check_choice, check_range, check_sizes

__all__ = ["PredictiveCoding"]


class PredictiveCoding(InferenceRule):
    r"""Predictive coding: relax the units' states on an energy, then learn to predict them.

    ``E = sum_l 1/2 |v_l - f_l(v)|^2 + loss_weight * L(v)`` for each sample, with the state v_l of
    unit l, its prediction f_l from the states below, and the loss L of the readout on the states.
    The states start at the forward pass, where only L is above zero, and take ``iterations`` steps
    ``v_l -= inference_lr dE/dv_l``. Then the update of the weights is dE/dW at fixed states,
    averaged over samples, so that the credit of unit l is ``-(v_l - f_l(v)) / N``.

    In one step of inference the error moves down by one unit, so the depth is the least number of
    iterations by which every unit learns. With few iterations or a small ``inference_lr`` lower
    units receive little: credit fades with depth.

    ``prediction: fixed`` keeps predictions and their derivatives as they were in the forward pass.
    With ``inference_lr: 1``, ``loss_weight: 1`` and as many iterations as there are units the
    update is then that of backpropagation, up to rounding.

    The loss must be a mean over samples. Passes run in float32 under mixed precision. Any net: in a
    residual net the states are what the blocks add to the stream. Learns digits on an
    MLP with AdamW at 1e-3 (configs/rules/predictive_coding.yaml), and MNIST.

    See :class:`lit_credit.rules.cut.CutRule` for the other arguments.

    Args:
        prediction: ``strict`` predicts from the states as they move, ``fixed`` as in the forward
            pass.
        iterations: steps of inference in each update.
        inference_lr: size of these steps.
        loss_weight: weight of the loss in the energy. Half the squared error of C outputs is
            ``C / 2`` times torch's MSELoss, which averages over outputs.

    Raises:
        ValueError: if an argument is out of range.

    Reference:
        Whittington, Bogacz, An Approximation of the Error Backpropagation Algorithm in a Predictive
        Coding Network with Local Hebbian Synaptic Plasticity, 2017, Neural Computation 29.
        ``fixed``: Millidge, Tschantz, Buckley, 2020, arXiv 2006.04182; Rosenbaum, On the
        Relationship Between Predictive Coding and Backpropagation, 2022, arXiv 2106.13082,
        algorithms 1 and 2.
    """

    look = Look(order=9, color=PURPLE)
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
        prediction: Literal["strict", "fixed"] = "strict",
        iterations: int = 20,
        inference_lr: float = 0.1,
        loss_weight: float = 1.0,
    ) -> None:
        check_choice(["strict", "fixed"], prediction=prediction)
        check_sizes(iterations=iterations)
        check_range(above=0, inference_lr=inference_lr, loss_weight=loss_weight)
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
        self.prediction = prediction
        self.iterations = iterations
        self.inference_lr = inference_lr
        self.loss_weight = loss_weight

    def infer(self, batch: Any) -> Inferred:
        """Relax the states."""
        if self.prediction == "fixed":
            with torch.enable_grad(), extra_pass(self.net, self.task):
                loss, energy, states, predicted = self._energy(batch, {})
                errors = self._fixed_errors(states, predicted, energy)
            return Inferred(loss.detach(), found=errors)
        loss, states = self._step(batch, {})  # the loss alone moves states in the first step
        for _ in range(self.iterations - 1):
            _, states = self._step(batch, states)
        return Inferred(loss, values=states)

    def _step(self, batch: Any, states: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the states after one more step of inference."""
        with torch.enable_grad(), extra_pass(self.net, self.task):
            loss, energy, now, _ = self._energy(batch, states)
            slopes = _slopes(energy, now)
        moved = {
            name: value.detach() - self.inference_lr * slope
            for (name, value), slope in zip(now.items(), slopes, strict=True)
        }
        return loss.detach(), moved

    def _energy(
        self, batch: Any, states: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], Mapping[str, Tensor]]:
        """The loss, the energy of a batch, the states, and what each unit predicts.

        States that are missing start at the predictions.
        """
        now: dict[str, Tensor] = {}
        learning = LearningPass()

        def go_on(name: str, predicted: Tensor) -> Tensor:
            now[name] = states.get(name, predicted).detach().requires_grad_()
            return self.handed_on(name, now[name])

        loss, graphs = self.run_units(batch, learning, values=go_on, cut_inputs=False)
        energy = self.loss_weight * learning.rows * loss
        for name, value in now.items() if states else ():
            energy = energy + 0.5 * (value - graphs.outputs[name]).square().sum()
        return loss, energy, now, graphs.outputs

    def credits(
        self, batch: Any, inferred: Inferred, learning: LearningPass
    ) -> Mapping[str, Tensor]:
        """``(f_l(v) - v_l) / N``."""
        if inferred.values is None:
            return {name: -error / learning.rows for name, error in inferred.found.items()}
        return {
            name: (output - inferred.values[name]) / learning.rows
            for name, output in learning.outputs.items()
        }

    def _fixed_errors(
        self, states: Mapping[str, Tensor], outputs: Mapping[str, Tensor], energy: Tensor
    ) -> dict[str, Tensor]:
        """``v_l - f_l`` after all iterations, f_l and its derivatives those of the first pass."""
        pull = _slopes(energy, states, keep=True)
        errors = [torch.zeros_like(value) for value in states.values()]
        for _ in range(self.iterations):
            predicted = [f for f in outputs.values() if f.requires_grad]
            given = [
                e.to(f.dtype)
                for e, f in zip(errors, outputs.values(), strict=True)
                if f.requires_grad
            ]
            back = torch.autograd.grad(
                predicted, list(states.values()), given, True, allow_unused=True
            )
            errors = [
                e - self.inference_lr * (e + p - (0 if b is None else b))
                for e, p, b in zip(errors, pull, back, strict=True)
            ]
        return dict(zip(states, errors, strict=True))

    def auxiliary_loss(self, batch: Any, learning: LearningPass) -> Tensor | None:
        """The readout learns from the loss as it is weighted in the energy."""
        return None if self.loss_weight == 1 else (self.loss_weight - 1) * learning.loss


def _slopes(energy: Tensor, states: Mapping[str, Tensor], keep: bool = False) -> list[Tensor]:
    """The gradients of the energy by the states."""
    values = list(states.values())
    found = torch.autograd.grad(energy, values, retain_graph=keep, allow_unused=True)
    if values and all(slope is None for slope in found):
        raise unreached("the units' outputs")
    return [
        torch.zeros_like(value) if slope is None else slope
        for value, slope in zip(values, found, strict=True)
    ]
