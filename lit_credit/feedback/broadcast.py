"""Sending credit into the graph: from the gradient of one tensor to the outputs of all units."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Size, Tensor, nn

from lit_credit.feedback.credits import Credits, Feedback
from lit_credit.feedback.entry import check_one_tensor
from lit_credit.feedback.layer_credit import bias_gradient, layer_credit, weight_gradient
from lit_credit.feedback.units import UnitGraphs

__all__ = ["ENTRIES", "Broadcast", "Learning"]

Learning = Callable[[Tensor, Mapping[str, Tensor]], Sequence[Tensor | None]]
"""Computes gradients of feedback parameters from the error and the outputs of the units."""


class Broadcast:
    """Sends every unit its credit when the backward pass reaches one tensor.

    The value of that tensor does not change. Its gradient is the error from which ``feedback``
    computes the credits. So the loss is differentiated once, and its gradient is the rule's update.

    Args:
        feedback: called with the error, the shapes of the units' outputs, and the gradient of the
            loss itself: 1, or the factor by which a GradScaler multiplies all gradients.
        penalty: weight of the mean square of every unit's output, which is added to the scalar that
            is differentiated.
        parameters: feedback matrices that learn.
        learn: called with the error and the units' outputs; returns a gradient for each of
            ``parameters``, or None. Left out where the last unit's gradient is the error.

    Example:
        >>> f, output = (torch.ones(1, n, requires_grad=True) for n in (2, 1))
        >>> b = torch.tensor([3.0, 4.0])
        >>> broadcast = Broadcast(lambda error, shapes, scale: Credits(lambda name: error * b))
        >>> (2 * broadcast(output, UnitGraphs({"unit": f}))).sum().backward()
        >>> f.grad, output.grad
        (tensor([[6., 8.]]), tensor([[2.]]))
    """

    def __init__(
        self,
        feedback: Feedback,
        penalty: float = 0.0,
        parameters: Sequence[nn.Parameter] = (),
        learn: Learning | None = None,
    ) -> None:
        self.feedback = feedback
        self.penalty = penalty
        self.parameters = list(parameters)
        self.learn = learn
        self.outputs: dict[str, Tensor] = {}
        self.scale: Tensor | float = 1.0
        self.shapes: dict[str, Size] = {}
        self._credits: Credits | None = None
        self._top: str | None = None
        self._link: Tensor | None = None

    def __call__(self, value: Tensor, graphs: UnitGraphs) -> Tensor:
        """Attach the units.

        Args:
            value: the tensor whose gradient is the error.
            graphs: the units' graphs from the forward pass; units without a graph get no credit.

        Returns:
            ``value``, attached to the graphs of all units.

        Raises:
            ValueError: if ``value`` is not a tensor.
        """
        check_one_tensor(value)
        self.shapes = {name: output.shape for name, output in graphs.outputs.items()}
        receivers = [
            self._receiver(name, graphs)
            for name, output in graphs.outputs.items()
            if output.requires_grad
        ]
        if self.learn is not None:
            self.outputs = {name: output.detach() for name, output in graphs.outputs.items()}
        passed: Tensor = _Broadcast.apply(self, value, *self.parameters, *receivers)
        return passed

    def extend(self, name: str, value: Tensor, graphs: UnitGraphs) -> Tensor:
        """Attach one more unit, which is the top unit until another one is attached.

        Args:
            name: name of the unit that has just run.
            value: its detached output. If no other unit follows, its gradient is the error.
            graphs: the units' graphs so far.

        Returns:
            A copy of ``value``, attached to the graphs of all units so far.
        """
        output = graphs.outputs[name]
        self.shapes[name], self._top = output.shape, name
        receivers = [self._receiver(name, graphs)] if output.requires_grad else []
        below = [] if self._link is None else [self._link]
        copy, self._link = _Link.apply(self, name, value, *receivers, *below)
        passed: Tensor = copy
        return passed

    def is_top(self, name: str) -> bool:
        """Whether no other unit has been attached after this one."""
        return name == self._top

    def watch(self, loss: Any) -> None:
        """Read the scale of the loss from its gradient, for a feedback that is not linear."""
        if isinstance(loss, Tensor) and loss.requires_grad:  # others are refused later, by name
            _on_gradient(loss, partial(setattr, self, "scale"))

    def send(self, error: Tensor) -> None:
        """Pass the error to ``feedback``; units ask for their credits later."""
        self._credits = self.feedback(error, self.shapes, self.scale)

    def learned(self, error: Tensor) -> Sequence[Tensor | None]:
        """The gradients of the feedback parameters."""
        return [] if self.learn is None else self.learn(error, self.outputs)

    @property
    def credits(self) -> Credits:
        """The credits of the current backward pass."""
        if self._credits is None:
            raise RuntimeError("the backward pass reached a unit before the error was known.")
        return self._credits

    def _receiver(self, name: str, graphs: UnitGraphs) -> Tensor:
        if name in graphs.linear and not self.penalty:
            x, layer = graphs.linear[name]
            token: Tensor = _Linear.apply(self, name, x, layer.weight, layer.bias)
            return token
        output = graphs.outputs[name]
        kept = output.detach() if self.penalty else None
        _on_gradient(output, partial(self._entering, name, kept))
        return output

    def _entering(self, name: str, output: Tensor | None, zeros: Tensor) -> Tensor:
        """The gradient that enters at the end of a unit, whose output is given for a penalty."""
        credit = self.credits.dense(name).to(zeros.dtype)
        if output is not None:
            credit = credit + output * (self.scale * (2 * self.penalty / output.numel()))
        return credit


class _Broadcast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, broadcast: Broadcast, value: Tensor, *given: Tensor) -> Tensor:
        ctx.broadcast = broadcast
        ctx.shapes = [receiver.shape for receiver in given[len(broadcast.parameters) :]]
        return value

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        ctx.broadcast.send(error)
        learned = ctx.broadcast.learned(error)
        # These zeros take no memory. Each unit replaces them by its credit when its own backward
        # begins: all credits at once would cost as much memory as the activations of an MLP.
        zero = error.new_zeros(())
        return None, error, *learned, *(zero.expand(shape) for shape in ctx.shapes)


class _Link(torch.autograd.Function):
    """One link of a chain of units; the last link receives the error for all units.

    The last link is known only after the forward pass, since a unit may be skipped. A gradient that
    arrives at another link, by a path around the units above it, is ignored.
    """

    @staticmethod
    def forward(
        ctx: Any, broadcast: Broadcast, name: str, value: Tensor, *receivers: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.broadcast, ctx.unit = broadcast, name
        ctx.shapes = [receiver.shape for receiver in receivers]
        ctx.set_materialize_grads(False)
        return value.clone(), value.new_empty(())  # a copy: the next operation may work in place

    @staticmethod
    def backward(
        ctx: Any, error: Tensor | None, from_above: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        zero = from_above
        if error is not None and ctx.broadcast.is_top(ctx.unit):
            ctx.broadcast.send(error)
            zero = error.new_zeros(())
        passed = (None if zero is None else zero.expand(shape) for shape in ctx.shapes)
        return None, None, None, *passed


class _Linear(torch.autograd.Function):
    """The backward of a unit that is one linear layer, for a credit of low rank a = e B^T.

    The gradients a^T x = B (e^T x) and a W = e (B^T W) do not need the (N, F) credit itself. The
    layer's own node is left out of the backward pass; a token replaces its output.
    """

    @staticmethod
    def forward(
        ctx: Any, broadcast: Broadcast, name: str, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.broadcast, ctx.name = broadcast, name
        ctx.save_for_backward(x, weight)
        return x.new_empty(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows, matrix = layer_credit(ctx.broadcast.credits, ctx.name, x, len(weight))
        _, _, needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            None,
            None,
            rows @ (weight if matrix is None else matrix.T @ weight) if needs_x else None,
            weight_gradient(rows, matrix, x) if needs_weight else None,
            bias_gradient(rows, matrix) if needs_bias else None,
        )


def _on_gradient(tensor: Tensor, hook: Callable[[Tensor], Tensor | None]) -> None:
    tensor.register_hook(hook)  # type: ignore[no-untyped-call]


ENTRIES = (_Broadcast, _Link)
"""The autograd functions in whose backward credit enters the graph."""
