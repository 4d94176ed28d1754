"""Linear and convolutional layers that send the error back through fixed random weights."""

import copyreg
from itertools import chain
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_credit.feedback.draw import Distribution
from lit_credit.feedback.ops import feedback_convolution, feedback_linear
from lit_credit.utils.private_names import AnyConvolution

__all__ = [
    "FeedbackAffine",
    "FeedbackConv1d",
    "FeedbackConv2d",
    "FeedbackConv3d",
    "FeedbackLayer",
    "FeedbackLinear",
    "FeedbackTransposed",
    "Recipe",
    "Sign",
    "feedback_class",
]

Sign = Literal["random", "weight"]


class Recipe(NamedTuple):
    """The distribution, scale and signs by which the feedback of a layer is drawn."""

    distribution: Distribution = "normal"
    scale: float = 1.0
    sign: Sign = "random"


class FeedbackLayer(nn.Module):
    """The base class of layers with a feedback backward.

    :func:`lit_credit.feedback.add_feedback` makes such a layer from a plain one.

    Attributes:
        feedback_backward: send the error through the feedback; False gives the plain layer.
        recipe: the recipe by which the feedback was drawn.
        follows_weight: a feedback that learns gets the gradient of its weight.
    """

    feedback_backward: bool = True
    follows_weight: bool = True
    recipe: Recipe

    def sends_feedback(self) -> bool:
        """Whether a forward pass that starts now needs the feedback.

        ``torch.jit.trace`` records the plain layer: a trace cannot hold a backward in Python.
        """
        tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        return self.feedback_backward and torch.is_grad_enabled() and not tracing

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle an instance of a class made at run time by the two base classes of that class."""
        reduced: Any = super().__reduce_ex__(protocol)
        make, args, *state = reduced
        made_of = vars(type(self)).get("made_of")
        if made_of is None or make is not copyreg.__newobj__:  # type: ignore[attr-defined]
            return (make, args, *state)
        return (_blank, made_of, *state)

    def sent(self, feedback: Tensor) -> Tensor:
        """The feedback as the backward pass uses it, cut off if it does not follow the weight."""
        return feedback if self.follows_weight else feedback.detach()

    def signs(self, weight: Tensor) -> Tensor | None:
        """The tensor whose signs the feedback takes: the current weight, or None."""
        return weight.detach() if self.recipe.sign == "weight" else None


_MADE: dict[tuple[type[FeedbackLayer], type[nn.Module]], type[FeedbackLayer]] = {}


def feedback_class(counterpart: type[FeedbackLayer], cls: type[nn.Module]) -> type[FeedbackLayer]:
    """The class derived from a feedback layer and from a class that a net uses."""
    parts = counterpart, cls
    if parts not in _MADE:
        _MADE[parts] = type(f"Feedback{cls.__name__}", parts, {"made_of": parts})
    return _MADE[parts]


def _blank(counterpart: type[FeedbackLayer], cls: type[nn.Module]) -> FeedbackLayer:
    return object.__new__(feedback_class(counterpart, cls))


class FeedbackLinear(FeedbackLayer, nn.Linear):
    """``nn.Linear`` with dL/dx = dL/dy B."""

    feedback: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        if not self.sends_feedback():
            return super().forward(input)
        weight = self.weight
        feedback = self.sent(self.feedback)
        return feedback_linear(input, weight, self.bias, feedback, self.signs(weight))


class FeedbackAffine(FeedbackLayer):
    """A layer, not an ``nn.Linear``, that was proved to compute x W' + b, W of (out, in)."""

    weight: Tensor
    feedback: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        if not self.sends_feedback():
            plain: Tensor = super().forward(input)
            return plain
        matrices = self.weight, self.sent(self.feedback), self.signs(self.weight)
        weight, feedback, signs = map(self.oriented, matrices)
        bias = getattr(self, "bias", None)
        return feedback_linear(input, weight, bias, feedback, signs)

    def oriented(self, matrix: Any) -> Any:
        """A matrix of the weight's shape as (out, in)."""
        return matrix


class FeedbackTransposed(FeedbackAffine):
    """A layer that was proved to compute x W + b, W of (in, out), like Hugging Face's Conv1D."""

    def oriented(self, matrix: Any) -> Any:
        """A matrix of the weight's shape as (out, in)."""
        return None if matrix is None else matrix.T


class _FeedbackConv(FeedbackLayer, AnyConvolution):
    feedback: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, in, *size), or (in, *size), to (N, out, *size)."""
        if not self.sends_feedback():
            plain: Tensor = super().forward(input)
            return plain
        x, padding = self._pad(input)
        batched = x.dim() == self.weight.dim()
        y = feedback_convolution(
            x if batched else x.unsqueeze(0),
            self.weight,
            self.bias,
            self.sent(self.feedback),
            self.signs(self.weight),
            stride=self.stride,
            padding=padding,
            dilation=self.dilation,
            groups=self.groups,
        )
        return y if batched else y.squeeze(0)

    def _pad(self, x: Tensor) -> tuple[Tensor, list[int]]:
        """Apply padding other than equal numbers of zeros on both sides; return the rest."""
        sides = self._sides()
        zeros = self.padding_mode == "zeros"
        # A "same" padding of odd size puts the odd zero on the right, as torch does.
        rest = [left if zeros else 0 for left, _ in sides]
        todo = [(left - n, right - n) for (left, right), n in zip(sides, rest, strict=True)]
        if any(map(any, todo)):
            mode = "constant" if zeros else self.padding_mode
            # F.pad counts from the last dimension.
            x = F.pad(x, list(chain.from_iterable(reversed(todo))), mode=mode)
        return x, rest

    def _sides(self) -> list[tuple[int, int]]:
        """The padding left and right of each dimension."""
        if self.padding == "valid":
            return [(0, 0) for _ in self.kernel_size]
        if self.padding == "same":
            totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return [(total // 2, total - total // 2) for total in totals]
        return [(int(n), int(n)) for n in self.padding]


class FeedbackConv1d(_FeedbackConv, nn.Conv1d):
    """``nn.Conv1d`` with a feedback of the weight's shape."""


class FeedbackConv2d(_FeedbackConv, nn.Conv2d):
    """``nn.Conv2d`` with a feedback of the weight's shape."""


class FeedbackConv3d(_FeedbackConv, nn.Conv3d):
    """``nn.Conv3d`` with a feedback of the weight's shape."""
