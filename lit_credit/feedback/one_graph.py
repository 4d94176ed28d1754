"""Sending credit into a graph that torch.compile reads: all credits at once, without hooks."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Size, Tensor

from lit_credit.feedback.broadcast import Broadcast, Learning
from lit_credit.feedback.credits import Feedback
from lit_credit.feedback.layer_credit import bias_gradient, layer_credit, weight_gradient
from lit_credit.feedback.units import UnitGraphs

__all__ = ["OneGraph"]


class OneGraph:
    """Does what a :class:`Broadcast` does, except for its penalty, in one autograd function.

    Args:
        broadcast: what computes the credits, and the gradients of feedback that learns.

    Attributes:
        zero: a zero that must be added to the loss. Its gradient is the factor on the loss.
    """

    def __init__(self, broadcast: Broadcast) -> None:
        self.broadcast = broadcast
        self.zero: Tensor | float = 0.0

    def __call__(self, value: Tensor, graphs: UnitGraphs) -> Tensor:
        """Attach all units.

        Args:
            value: the tensor whose gradient is the error.
            graphs: the units' graphs from the forward pass.

        Returns:
            ``value``, attached to the graphs of all units.
        """
        learn, outputs = self.broadcast.learn, graphs.outputs
        # A layer whose input needs no gradient receives its own, others that of their output.
        layers = {n: pair for n, pair in graphs.linear.items() if not pair[0].requires_grad}
        receivers: list[Tensor | None] = []
        for name, output in outputs.items():
            if name in layers:
                x, layer = layers[name]
                receivers += [x, layer.weight, layer.bias]
            else:
                receivers.append(output)
        kept = [output.detach() for output in outputs.values()] if learn is not None else []
        names = tuple((name, name in layers) for name in outputs)
        given = value, *kept, *self.broadcast.parameters, *receivers
        passed, self.zero = _OneGraph.apply(self.broadcast.feedback, learn, names, *given)
        return cast(Tensor, passed)


class _OneGraph(torch.autograd.Function):
    """``names`` tells of each unit whether it is a layer, given as its input, weight and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        feedback: Feedback,
        learn: Learning | None,
        names: Sequence[tuple[str, bool]],
        value: Tensor,
        *given: Tensor,
    ) -> tuple[Tensor, Tensor]:
        outputs = given[: len(names)] if learn is not None else ()
        receivers = list(given[len(given) - sum(3 if layer else 1 for _, layer in names) :])
        shapes, inputs = {}, []
        for name, is_layer in names:
            first = receivers.pop(0)
            if is_layer:
                weight, _ = receivers.pop(0), receivers.pop(0)
                inputs.append(first)
                shapes[name] = Size((*first.shape[:-1], weight.shape[0]))
            else:
                shapes[name] = first.shape
        ctx.feedback, ctx.learn, ctx.names, ctx.shapes = feedback, learn, names, shapes
        ctx.save_for_backward(*outputs, *inputs)
        return value.view_as(value), torch.zeros((), device=value.device)

    @staticmethod
    def backward(ctx: Any, error: Tensor, scale: Tensor) -> tuple[Tensor | None, ...]:
        credits = ctx.feedback(error, ctx.shapes, scale)
        saved = list(ctx.saved_tensors)
        sent: list[Tensor | None] = []
        if ctx.learn is not None:
            outputs = {name: saved.pop(0) for name, _ in ctx.names}
            sent += [None] * len(outputs)
            sent += ctx.learn(error, outputs)
        for name, is_layer in ctx.names:
            if is_layer:
                x = saved.pop(0)
                rows, matrix = layer_credit(credits, name, x, ctx.shapes[name][-1])
                sent += [None, weight_gradient(rows, matrix, x), bias_gradient(rows, matrix)]
            else:
                sent.append(credits.dense(name))
        return None, None, None, error, *sent
