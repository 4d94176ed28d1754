"""The way of credit into the graph: from the gradient of one tensor to the outputs of all units."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Size, Tensor
from torch.nn.functional import linear

from lit_credit.feedback.units import UnitGraphs

__all__ = [
    "Broadcast",
    "Credits",
    "Factors",
    "Feedback",
    "channel_dim",
    "check_rows",
    "in_shape",
    "normalized_credits",
    "rms_normalized",
]


class Factors(NamedTuple):
    """A credit of low rank, ``rows @ matrix.T``: errors (..., C) and a matrix (F, C)."""

    rows: Tensor
    matrix: Tensor


class Credits(NamedTuple):
    """How the credits of one backward pass are computed, each from the name of its unit.

    Attributes:
        dense: the credit, of the shape of the unit's output.
        factors: the credit as a product, or None where it is none.
    """

    dense: Callable[[str], Tensor]
    factors: Callable[[str], Factors | None] = lambda _: None


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
        >>> broadcast = Broadcast(lambda error, shapes, scale: Credits(lambda name: error * b))
        >>> (2 * broadcast(output, UnitGraphs({"unit": f}))).sum().backward()
        >>> f.grad, output.grad
        (tensor([[6., 8.]]), tensor([[2.]]))
    """

    def __init__(self, feedback: Feedback) -> None:
        self.feedback = feedback
        self.scale: Tensor | float = 1.0
        self.shapes: dict[str, Size] = {}
        self._credits: Credits | None = None
        self._top: str | None = None
        self._link: Tensor | None = None

    def __call__(self, value: Tensor, graphs: UnitGraphs) -> Tensor:
        """Attach the units.

        Args:
            value: the tensor whose gradient is the error.
            graphs: what the units' forward left behind; units without a graph get no credit.

        Returns:
            ``value``, attached to the graphs of all units.

        Raises:
            ValueError: if ``value`` is no tensor.
        """
        if not isinstance(value, Tensor):
            raise ValueError(
                f"the net's output is {type(value).__name__}, but this rule needs one tensor to "
                "take the error at. Wrap the net so that it returns a tensor."
            )
        self.shapes = {name: output.shape for name, output in graphs.outputs.items()}
        receivers = [
            self._receiver(name, graphs)
            for name, output in graphs.outputs.items()
            if output.requires_grad
        ]
        passed: Tensor = _Broadcast.apply(self, value, *receivers)
        return passed

    def extend(self, name: str, value: Tensor, graphs: UnitGraphs) -> Tensor:
        """Attach one more unit, the top of those attached until another one is.

        Args:
            name: of the unit that has just run.
            value: its output, detached. Where no other unit follows, its gradient is the error.
            graphs: what the units' forward has left behind so far.

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

    def watch(self, loss: Tensor) -> None:
        """Take the scale of the loss from its gradient, for a feedback that is not linear."""
        _on_gradient(loss, partial(setattr, self, "scale"))

    def send(self, error: Tensor) -> None:
        """Make the error known; units ask for their credits later."""
        self._credits = self.feedback(error, self.shapes, self.scale)

    @property
    def credits(self) -> Credits:
        """The credits of the present backward pass."""
        if self._credits is None:
            raise RuntimeError("the backward pass reached a unit before the error was known.")
        return self._credits

    def _receiver(self, name: str, graphs: UnitGraphs) -> Tensor:
        if name in graphs.linear:
            x, layer = graphs.linear[name]
            token: Tensor = _Linear.apply(self, name, x, layer.weight, layer.bias)
            return token
        output = graphs.outputs[name]
        _on_gradient(output, lambda zeros: self.credits.dense(name).to(zeros.dtype))
        return output


class _Broadcast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, broadcast: Broadcast, value: Tensor, *receivers: Tensor) -> Tensor:
        ctx.broadcast = broadcast
        ctx.shapes = [receiver.shape for receiver in receivers]
        return value

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        ctx.broadcast.send(error)
        # A unit computes its credit when its own backward begins, in place of these zeros, which
        # take no memory: all credits at once would cost as much as the activations of an MLP.
        zero = error.new_zeros(())
        return None, error, *(zero.expand(shape) for shape in ctx.shapes)


class _Link(torch.autograd.Function):
    """One link of a chain of units, the last of which takes the error for all of them.

    Which one is the last is known only after the forward pass: a unit may be skipped. A gradient
    that arrives at another link, by a path around the units above it, is left out.
    """

    @staticmethod
    def forward(
        ctx: Any, broadcast: Broadcast, name: str, value: Tensor, *receivers: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.broadcast, ctx.unit = broadcast, name
        ctx.shapes = [receiver.shape for receiver in receivers]
        ctx.set_materialize_grads(False)
        return value.clone(), value.new_empty(())  # a copy: what follows may work in place

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

    The gradients a^T x = B (e^T x) and a W = e (B^T W) need no product with the (N, F) credit.
    The layer's own node is left out of the backward pass; a token stands for its output.
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
        factors = ctx.broadcast.credits.factors(ctx.name)
        if factors is None or not _worthwhile(factors, x, weight):
            # B = 1: the same formulas for a dense credit.
            rows, matrix = ctx.broadcast.credits.dense(ctx.name).to(x.dtype), None
        else:
            rows, matrix = factors
        _, _, needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        by_sample = rows.reshape(-1, rows.shape[-1])
        grad_x = grad_weight = grad_bias = None
        if needs_x:
            grad_x = rows @ (weight if matrix is None else matrix.T @ weight)
        if needs_weight:
            grad_weight = by_sample.T @ x.reshape(-1, x.shape[-1])
            grad_weight = grad_weight if matrix is None else matrix @ grad_weight
        if needs_bias:
            grad_bias = by_sample.sum(0)
            grad_bias = grad_bias if matrix is None else matrix @ grad_bias
        return None, None, grad_x, grad_weight, grad_bias


def _worthwhile(factors: Factors, x: Tensor, weight: Tensor) -> bool:
    """Whether the factors fit the layer's output, and two thin products are fewer operations."""
    rows, matrix = factors
    samples, (features, rank) = rows.shape[:-1].numel(), matrix.shape
    fits = rows.dtype == x.dtype and rows.shape[:-1] == x.shape[:-1] and features == len(weight)
    return fits and rank * (samples + features) < samples * features


def _on_gradient(tensor: Tensor, hook: Callable[[Tensor], Tensor | None]) -> None:
    tensor.register_hook(hook)  # type: ignore[no-untyped-call]


def rms_normalized(
    rows: Tensor, samples: Tensor | float, eps: float = 1e-6, credit: Tensor | None = None
) -> Tensor:
    """Credit of unit root mean square per sample: ``a / (rms(a) + eps) / samples``.

    The rms is that of the credit of a per-sample loss. A mean loss divides every credit by the
    number of samples, so it is multiplied out first and divided by again at the end.

    Args:
        rows: what to scale, (..., d); a gradient of a mean over ``samples``.
        samples: rows that the loss averages over; divided by the scale, if the loss has one.
        eps: added to the rms.
        credit: a, where ``rows`` are only a factor of it; None if they are the credit.

    Example:
        >>> rms_normalized(torch.tensor([[3.0, 4.0]]), samples=1)
        tensor([[0.8485, 1.1314]])
    """
    credit = rows if credit is None else credit
    root_d = credit.shape[-1] ** 0.5
    rms = torch.linalg.vector_norm(credit, dim=-1, keepdim=True) * (samples / root_d)
    normalized: Tensor = rows / (rms.abs() + eps)  # a negative scale keeps its sign in `rows`
    return normalized


def normalized_credits(
    credits: Credits, shapes: Mapping[str, Size], scale: Tensor | float
) -> Credits:
    """Credits of unit root mean square, each scaled when it is asked for.

    A credit (N, T, d) is scaled position by position, a feature map (N, C, H, W) sample by sample;
    one that is a product as its rows, before it takes the shape of its unit.

    Args:
        credits: of the units.
        shapes: of the units' outputs.
        scale: factor on the loss.

    Example:
        >>> plain = Credits(lambda name: torch.tensor([[3.0, 4.0]]))
        >>> normalized_credits(plain, {"unit": torch.Size([1, 2])}, 1.0).dense("unit")
        tensor([[0.8485, 1.1314]])
    """

    def scaled(credit: Tensor) -> Tensor:
        return rms_normalized(credit, credit.shape[:-1].numel() / scale)

    def dense(name: str) -> Tensor:
        product = credits.factors(name)
        if product is not None:
            return in_shape(scaled(linear(product.rows, product.matrix)), shapes[name])
        credit = credits.dense(name)
        if credit.dim() > 3:
            return scaled(credit.flatten(1)).reshape(credit.shape)
        return scaled(credit)

    def factors(name: str) -> Factors | None:
        product = credits.factors(name)
        if product is None:
            return None
        rows, matrix = product
        samples = rows.shape[:-1].numel() / scale
        return Factors(rms_normalized(rows, samples, credit=linear(rows, matrix)), matrix)

    return Credits(dense, factors)


def check_rows(unit: str, shape: Size, source: Size, what: str) -> None:
    """Check that a unit ran for the samples of what its credit is made of, one row each.

    Args:
        unit: its name.
        shape: of its output.
        source: shape of what the credit is made of.
        what: that is, for the error.

    Raises:
        ValueError: if there are more or fewer rows, as of an expert that runs for some samples.
    """
    if not shape or shape[0] != source[0]:
        raise ValueError(
            f"unit {unit!r} hands on {tuple(shape)}, but its credit is made of the {what}, "
            f"{tuple(source)}, row by row: expected {source[0]} rows. A submodule that runs for "
            "some of the samples, such as an expert, cannot be a unit, nor one whose rows are "
            "nodes, tokens or parts of samples. Name the submodule that contains all of them, put "
            "the batch first (`batch_first=True`), or train the net by FA."
        )


def in_shape(credit: Tensor, shape: Size) -> Tensor:
    """A credit (N, F) or (N, ..., d) in the shape of a unit's output."""
    if credit.shape == shape:
        return credit
    if credit.shape[1:].numel() == shape[1:].numel():
        return credit.reshape(shape)
    if channel_dim(shape) == 1:
        return credit[(...,) + (None,) * (len(shape) - 2)].expand(shape)
    return credit[:, None].expand(shape)


def channel_dim(shape: Size) -> int:
    """Features come last in (N, d) and (N, T, d), and second in feature maps (N, d, H, W)."""
    return 1 if len(shape) > 3 else -1
