"""Sending credit into a graph that torch.compile reads: all credits at once, without hooks."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Size, Tensor

from lit_credit.feedback.broadcast import Broadcast, Learning
from lit_credit.feedback.credits import Feedback
from lit_credit.feedback.entry import check_one_tensor
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
        check_one_tensor(value)
        learn, outputs = self.broadcast.learn, graphs.outputs
        names: list[tuple[str, str]] = []
        receivers: list[Tensor | None] = []
        # Each receiver is a tensor of its own: torch.compile refuses one that is given twice.
        for name, output in outputs.items():
            x, layer = graphs.linear.get(name, (None, None))
            if not output.requires_grad:
                names.append((name, "none"))
                receivers.append(output.detach())
            elif x is None or layer is None or x.requires_grad:
                names.append((name, "output"))
                receivers.append(output.view_as(output))
            else:  # a layer whose input needs no gradient receives its own
                names.append((name, "layer"))
                bias = None if layer.bias is None else layer.bias.view_as(layer.bias)
                receivers += [x.detach(), layer.weight.view_as(layer.weight), bias]
        kept = [output.detach() for output in outputs.values()] if learn is not None else []
        given = value, *kept, *self.broadcast.parameters, *receivers
        passed, self.zero = _OneGraph.apply(self.broadcast.feedback, learn, tuple(names), *given)
        return cast(Tensor, passed)


class _OneGraph(torch.autograd.Function):
    """``names`` tells of each unit what it receives.

    ``output``: its credit; ``layer``: the gradients of a layer, given as input, weight and bias;
    ``none``: nothing, since it is frozen.
    """

    @staticmethod
    def forward(
        ctx: Any,
        feedback: Feedback,
        learn: Learning | None,
        names: Sequence[tuple[str, str]],
        value: Tensor,
        *given: Tensor,
    ) -> tuple[Tensor, Tensor]:
        outputs = given[: len(names)] if learn is not None else ()
        count = sum(3 if kind == "layer" else 1 for _, kind in names)
        receivers = list(given[len(given) - count :])
        shapes, inputs = {}, []
        for name, kind in names:
            first = receivers.pop(0)
            if kind == "layer":
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
        for name, kind in ctx.names:
            if kind == "layer":
                x = saved.pop(0)
                rows, matrix = layer_credit(credits, name, x, ctx.shapes[name][-1])
                sent += [None, weight_gradient(rows, matrix, x), bias_gradient(rows, matrix)]
            else:
                sent.append(credits.dense(name) if kind == "output" else None)
        return None, None, None, error, *sent
