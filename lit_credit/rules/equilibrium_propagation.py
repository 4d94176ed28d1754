"""Equilibrium propagation: credit from two steady states of an energy."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lit_credit.feedback.credits import rows_of
from lit_credit.headlines import Look
from lit_credit.inspect.capture import Point, capture
from lit_credit.protocols import NetProtocol, member_name, method
from lit_credit.rules.base import CreditRule
from lit_credit.rules.step_noise import StepNoise
from lit_credit.tasks import Task
from lit_credit.utils.colors import PURPLE
from lit_credit.utils.random_state import run_seed
from lit_credit.utils.ranges import check_choice, check_parts, check_range

__all__ = ["EquilibriumPropagation"]

Nudging = Literal["symmetric", "one_sided", "random_sign"]


class EquilibriumPropagation(StepNoise, CreditRule):
    """Every parameter follows the difference of an energy's gradients at two steady states.

    In the free phase the states s of the net settle at a minimum of the energy E. In a nudged phase
    they start there and settle under ``-beta dL/ds``, with the loss L of each sample. With the
    total energy ``F(b, s) = E(s) + b L(s)`` and states s_b of the phase b, held fixed, the update
    is the gradient of one scalar, a mean over samples:

    - ``symmetric``: ``(F(beta, s_beta) - F(-beta, s_-beta)) / (2 beta)``, with two nudged phases;
      its bias is of order beta^2;
    - ``one_sided``: ``(F(beta, s_beta) - F(0, s_0)) / beta``, bias of order beta;
    - ``random_sign``: ``one_sided``, the sign of beta drawn anew in each step.

    In the limit of small beta and settled states this is the gradient of the loss. The readout lies
    outside of the energy, and its gradient is that of the loss at the nudged states. The credit of
    a unit is the scalar's gradient at the unit's output, both phases together. For
    :class:`lit_credit.models.EnergyMLP` this is ``-(s_beta - s_-beta) / (2 beta N)``, which tends
    to the exact gradient at the layer's current.

    The net needs an energy: :class:`lit_credit.models.EnergyMLP`, or a net of your own with the
    methods ``relax``, ``energy`` and ``output_of``; see docs/protocols.md. All other nets are
    refused. Half and mixed precision are refused too: their rounding hides how far a nudge moves
    the states, and would spoil the difference of both phases in the backward pass.

    Known to learn: digits and MNIST with hard-sigmoid states, Adam or AdamW, beta 0.1 to 0.5;
    configs/rules/equilibrium_propagation.yaml and configs/rules/ep_mnist.yaml.

    See :class:`lit_credit.rules.CreditRule` for the other arguments.

    Args:
        beta: strength of the nudge. A smaller one has less bias and more rounding error.
        nudging: the phases of an update, see above.
        nudged_steps: updates of the states in each nudged phase. The free phase has the steps of
            the net's own forward pass.

    Raises:
        ValueError: if the net has no energy, a number is out of range, or ``compile`` is set; at
            the first batch, if the precision is half or mixed.

    Reference:
        Scellier, Bengio, Equilibrium Propagation, 2017, arXiv 1602.05179 (one-sided, random sign).
        Laborieux et al., Scaling Equilibrium Propagation to Deep ConvNets by Drastically Reducing
        its Gradient Estimator Bias, 2021, arXiv 2006.03824 (symmetric, the readout).
    """

    look = Look(order=13, color=PURPLE)

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
        beta: float = 0.1,
        nudging: Nudging = "symmetric",
        nudged_steps: int = 10,
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
        )
        needed = (NetProtocol.relax, NetProtocol.energy, NetProtocol.output_of)
        missing = [f"`{member_name(m)}`" for m in needed if method(net, m) is None]
        if missing:
            raise ValueError(
                f"EquilibriumPropagation compares two steady states of an energy, but "
                f"{type(net).__name__} has no method {', '.join(missing)}. Train "
                "lit_credit.models.EnergyMLP, give the net these methods (docs/protocols.md), or "
                "choose a rule for all nets, such as BP or DFA."
            )
        if self.compile_options is not None:
            raise ValueError(
                f"`compile` is {compile!r}, expected false: the phases of EquilibriumPropagation "
                "differentiate the loss inside of loops, which torch.compile does not trace as one "
                "graph. Leave it out."
            )
        check_range(above=0, beta=beta)
        check_choice(["symmetric", "one_sided", "random_sign"], nudging=nudging)
        check_parts(nudged_steps=nudged_steps)
        self.beta = beta
        self.nudging = nudging
        self.nudged_steps = nudged_steps
        self.noise_seed = run_seed()

    def surrogate(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The loss at the free state, and the scalar whose gradient is the update."""
        loss, terms = self._terms(batch)
        return loss, torch.stack([term() for term in terms]).sum()

    def credit(self, batch: Any) -> dict[str, Tensor]:
        """The scalar's gradient at the output of each unit, summed over both phases."""
        found: dict[str, Tensor] = {}
        points = [Point(name, "output") for name in self.credit_units]
        for term in self._terms(batch)[1]:
            with capture(self, points) as outputs:
                value = term()
            if not outputs:
                continue
            gradients = torch.autograd.grad(
                value, list(outputs.values()), allow_unused=True, materialize_grads=True
            )
            for point, gradient in zip(outputs, gradients, strict=True):
                found[point.module] = found.get(point.module, 0) + gradient
        return found

    def _terms(self, batch: Any) -> tuple[Tensor, list[Callable[[], Tensor]]]:
        """The loss at the free state, and functions that return the scalar's two terms.

        All states are computed here, without graphs. The functions build the graph of the
        parameters.
        """
        net = cast(NetProtocol, self.net)
        inputs = self.task.inputs(batch)
        beta, steps = self._signed_beta(), self.nudged_steps
        symmetric = self.nudging == "symmetric"
        with torch.no_grad():
            free = net.relax(inputs, None, None, None)
            self._check_precision(free)
            output = net.output_of(free)
            loss = self.task.loss(output, batch)
            rows = rows_of(output.shape)
            up = net.relax(inputs, free, steps, partial(self._force, beta * rows, batch))
            if symmetric:
                down = net.relax(inputs, free, steps, partial(self._force, -beta * rows, batch))

        def total(beta: float, states: Sequence[Tensor], distance: float) -> Tensor:
            """``F(beta, s)`` at fixed states, a mean over samples; divided by a distance."""
            value = net.energy(inputs, states).sum() / rows
            if beta:
                value = value + beta * self.task.loss(net.output_of(states), batch)
            return value / distance

        if symmetric:
            return loss, [partial(total, b, s, 2 * b) for b, s in ((beta, up), (-beta, down))]
        return loss, [partial(total, beta, up, beta), partial(total, 0.0, free, -beta)]

    def _force(self, strength: float, batch: Any, states: Sequence[Tensor]) -> list[Tensor]:
        """``-strength dL/ds``."""
        with torch.enable_grad():
            leaves = [state.detach().requires_grad_() for state in states]
            loss = self.task.loss(cast(NetProtocol, self.net).output_of(leaves), batch)
            gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        return [-strength * gradient for gradient in gradients]

    def _signed_beta(self) -> float:
        if self.nudging != "random_sign":
            return self.beta
        negative = torch.rand((), generator=self.step_generator(stream=4)) < 0.5
        return -self.beta if negative else self.beta

    def _check_precision(self, states: Sequence[Tensor]) -> None:
        mixed = torch.is_autocast_enabled(self.device.type)
        coarse = any(torch.finfo(state.dtype).bits < 32 for state in states)
        if mixed or coarse:
            raise ValueError(
                "EquilibriumPropagation takes differences of two almost equal states, which "
                f"{'mixed' if mixed else 'half'} precision rounds away. Set the Trainer's "
                "`precision` to 32-true or 64-true."
            )
