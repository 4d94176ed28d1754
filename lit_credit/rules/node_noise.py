"""Noise at the outputs of units, and its effect at the output of the net."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from lit_credit.feedback.entry import check_output
from lit_credit.rules.cut import CutRule
from lit_credit.rules.extra_passes import full_precision
from lit_credit.rules.step_noise import StepNoise
from lit_credit.utils.short_text import shortened

__all__ = ["NodeNoise", "dual", "forward_derivative", "parts_of_dual"]


class NodeNoise(StepNoise, CutRule):
    """A rule that perturbs the outputs of its units and learns from what arrives at the output."""

    without_derivative: ClassVar[str] = "Replace the operation, or train the net by DFA."
    """What to do if an operation of the net has no forward derivative."""

    def effect(
        self, batch: Any, stream: int, epsilon: float | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Noise v_l ~ N(0, 1) at each unit's output, and its effect ``d = sum_l J_l v_l``.

        The pass is an extra one; it keeps no graph.

        Args:
            batch: what the task takes.
            stream: tells a rule's noises from each other.
            epsilon: None takes the derivative, by a pass with tangents. A number takes the central
                difference of two passes with ``epsilon v_l`` added and subtracted.

        Returns:
            The noise, by the name of the unit, and d in the shape of the net's output.

        Raises:
            ValueError: if an operation of the net has no forward derivative, if the output does not
                depend on the units, or if a difference is asked for and the weights have half
                precision.
        """
        generator = self.step_generator(stream)
        noise: dict[str, Tensor] = {}

        def draw(name: str, value: Tensor) -> Tensor:
            if name not in noise:
                noise[name] = self.noise_like(value, generator)
            return noise[name]

        if epsilon is not None:
            with full_precision(type(self).__name__, self.net, self.device.type):
                up = self.run_silently(batch, lambda n, v: v + epsilon * draw(n, v))
                down = self.run_silently(batch, lambda n, v: v - epsilon * draw(n, v))
            check_output(up)
            return noise, (up - down) / (2 * epsilon)

        def add_tangent(name: str, value: Tensor) -> Tensor:
            primal, tangent = parts_of_dual(value)
            added = draw(name, primal)
            # A copy: an operation in place would change the noise too.
            return dual(primal, added.clone() if tangent is None else tangent + added)

        with forward_derivative(self.without_derivative, self.net, self.device.type):
            output = self.run_silently(batch, add_tangent)
            check_output(output)
            _, found = parts_of_dual(output)
        if found is None:
            raise ValueError("the net's output does not depend on its units; choose other `units`.")
        return noise, found


@contextmanager
def forward_derivative(remedy: str, net: nn.Module, device: str) -> Iterator[None]:
    """Let tensors carry tangents inside the ``with``.

    Args:
        remedy: what to do if an operation has none, for the error.
        net: the net, for the error.
        device: type of the device.

    Raises:
        ValueError: inside, if an operation has no forward derivative.
    """
    with (
        torch.no_grad(),
        _without_deprecations(),
        # Products of mixed types have no forward derivative.
        torch.autocast(device, enabled=False),
        sdpa_kernel(SDPBackend.MATH),  # the others have no forward derivative
        forward_ad.dual_level(),
    ):
        try:
            yield
        except (RuntimeError, NotImplementedError) as error:
            if "forward AD" not in str(error) and "jvp" not in str(error):
                raise
            reason = shortened(str(error).partition("\n")[0].partition(". ")[0].rstrip("."), 200)
            kind = type(net).__name__
            raise ValueError(
                f"an operation of {kind} has no forward derivative: {reason}. {remedy}"
            ) from error


def parts_of_dual(value: Tensor) -> tuple[Tensor, Tensor | None]:
    """The value and the tangent of a tensor in a forward pass with tangents."""
    primal, tangent = forward_ad.unpack_dual(value)  # type: ignore[no-untyped-call]
    return primal, tangent


def dual(primal: Tensor, tangent: Tensor) -> Tensor:
    """A tensor with a tangent."""
    made: Tensor = forward_ad.make_dual(primal, tangent)  # type: ignore[no-untyped-call]
    return made


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """Hide that torch, at the first forward derivative, uses what it has deprecated itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.script", FutureWarning)
        warnings.filterwarnings("ignore", ".*torch.jit.script", DeprecationWarning)
        yield
