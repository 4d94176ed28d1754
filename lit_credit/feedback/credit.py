"""The way of credit into the graph: from the gradient of one tensor to the outputs of all units."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Size, Tensor

__all__ = ["Broadcast", "Credits", "Feedback", "rms_normalized"]

Credits = Callable[[str], Tensor]
"""From the name of a unit to its credit, of the shape of its output."""

Feedback = Callable[[Tensor, Mapping[str, Size], Tensor | float], Credits]
"""From an error, the shapes of the units' outputs and the scale of the loss to the credits."""


class Broadcast:
    """Hands every unit its credit when the backward pass comes through one tensor.

    That tensor goes on unchanged. The gradient that arrives at it is the error that ``feedback``
    makes the credits of, so the loss is differentiated once, and its gradient is the rule's update.

    Args:
        feedback: called with the error, the shapes of the units' outputs, and the gradient of the
            loss itself: 1, or what a GradScaler multiplies all gradients with.

    Example:
        >>> f, output = (torch.ones(1, n, requires_grad=True) for n in (2, 1))
        >>> b = torch.tensor([3.0, 4.0])
        >>> broadcast = Broadcast(lambda error, shapes, scale: lambda name: error * b)
        >>> (2 * broadcast(output, {"unit": f})).sum().backward()
        >>> f.grad, output.grad
        (tensor([[6., 8.]]), tensor([[2.]]))
    """

    def __init__(self, feedback: Feedback) -> None:
        self.feedback = feedback
        self.scale: Tensor | float = 1.0
        self.shapes: dict[str, Size] = {}
        self._credits: Credits | None = None

    def __call__(self, value: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """Attach the units.

        Args:
            value: the tensor whose gradient is the error.
            outputs: units' outputs by name; those without a graph get no credit.

        Returns:
            ``value``, attached to the graphs of all outputs.

        Raises:
            ValueError: if ``value`` is no tensor.
        """
        if not isinstance(value, Tensor):
            raise ValueError(
                f"the net's output is {type(value).__name__}, but this rule needs one tensor to "
                "take the error at. Wrap the net so that it returns a tensor."
            )
        self.shapes = {name: output.shape for name, output in outputs.items()}
        attached = {name: output for name, output in outputs.items() if output.requires_grad}
        for name, output in attached.items():
            _on_gradient(output, partial(self._deliver, name))
        passed: Tensor = _Broadcast.apply(self, value, *attached.values())
        return passed

    def watch(self, loss: Tensor) -> None:
        """Take the scale of the loss from its gradient, for a feedback that is not linear."""
        _on_gradient(loss, partial(setattr, self, "scale"))

    def send(self, error: Tensor) -> None:
        """Make the error known; units ask for their credits later."""
        self._credits = self.feedback(error, self.shapes, self.scale)

    def _deliver(self, name: str, placeholder: Tensor) -> Tensor:
        if self._credits is None:
            raise RuntimeError(f"the backward pass reached {name!r} without an error to send.")
        return self._credits(name).to(placeholder.dtype)


class _Broadcast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, broadcast: Broadcast, value: Tensor, *outputs: Tensor) -> Tensor:
        ctx.broadcast = broadcast
        ctx.layouts = [(output.shape, output.dtype, output.device) for output in outputs]
        return value

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        ctx.broadcast.send(error)
        # A unit computes its credit when its own backward begins, in place of these zeros, which
        # take no memory: all credits at once would cost as much as the activations of an MLP.
        zeros = (
            torch.zeros((), dtype=dtype, device=device).expand(shape)
            for shape, dtype, device in ctx.layouts
        )
        return None, error, *zeros


def _on_gradient(tensor: Tensor, hook: Callable[[Tensor], Tensor | None]) -> None:
    tensor.register_hook(hook)  # type: ignore[no-untyped-call]


def rms_normalized(credit: Tensor, samples: Tensor | float, eps: float = 1e-6) -> Tensor:
    """Credit of unit root mean square per sample: ``a / (rms(a) + eps) / samples``.

    The rms is that of the credit of a per-sample loss. A mean loss divides every credit by the
    number of samples, so it is multiplied out first and divided by again at the end.

    Args:
        credit: (..., d), a gradient of a mean over ``samples``.
        samples: rows that the loss averages over; divided by the scale, if the loss has one.
        eps: added to the rms.

    Example:
        >>> rms_normalized(torch.tensor([[3.0, 4.0]]), samples=1)
        tensor([[0.8485, 1.1314]])
    """
    root_d = credit.shape[-1] ** 0.5
    rms = torch.linalg.vector_norm(credit, dim=-1, keepdim=True) * (samples / root_d)
    normalized: Tensor = credit / (rms + eps)
    return normalized
