"""The feedback matrices of a net: to draw, to read, to draw anew."""

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_credit.feedback.draw import derive_seed, draw_feedback
from lit_credit.feedback.layers import FeedbackLayer, FeedbackTransposed, Recipe
from lit_credit.feedback.ops import effective_feedback
from lit_credit.utils.compiled import clean_name
from lit_credit.utils.short_text import choice

__all__ = ["FeedbackPair", "draw_for", "feedback_layers", "feedback_names", "redraw_feedback"]


class FeedbackPair(NamedTuple):
    """A feedback matrix and the weight in whose place it stands, of the same shape.

    Attributes:
        feedback: B as the error meets it, signs included.
        weight: W, or None where B stands for no single weight.
    """

    feedback: Tensor
    weight: Tensor | None


def feedback_names(layer: nn.Module) -> dict[str, str]:
    """The name of each weight that gets a feedback, and of the buffer that holds the feedback."""
    if not isinstance(layer, nn.MultiheadAttention):
        return {"weight": "feedback"}
    fused = layer.in_proj_weight is not None
    names = ["in_proj"] if fused else ["q_proj", "k_proj", "v_proj"]
    return {f"{name}_weight": f"{name}_feedback" for name in names}


def draw_for(
    layer: nn.Module, name: str, weight_name: str, recipe: Recipe, seed: int, transposed: bool
) -> Tensor:
    """Draw the feedback of one weight, (out, in / groups, *kernel); magnitudes, if it lends signs.

    Fans are counted as in ``torch.nn.init``, without regard to a stride. A fused projection is
    drawn as the three matrices that it is. Each weight has a random stream of its own, by the names
    of the layer and of the weight. That of a transposed weight is the transpose of what a Linear of
    the same name would get.
    """
    # A compiled net has the matrices of the same net uncompiled.
    stream = derive_seed(seed, f"{clean_name(name)}.{weight_name}")
    weight = getattr(layer, weight_name).detach()
    weight = weight.T if transposed else weight
    parts = []
    for index, part in enumerate(weight.chunk(_stacked(weight_name))):
        rows, columns, *kernel = part.shape
        drawn = draw_feedback(
            part.shape,
            fan_in=rows // getattr(layer, "groups", 1) * prod(kernel),
            fan_out=columns * prod(kernel),
            distribution=recipe.distribution,
            scale=recipe.scale,
            seed=derive_seed(stream, index),
            weight=part,
            device=part.device,
            dtype=part.dtype,
        )
        parts.append(drawn.abs_() if recipe.sign == "weight" else drawn)
    return torch.cat(parts).T.contiguous() if transposed else torch.cat(parts)


def feedback_layers(module: nn.Module) -> dict[str, FeedbackPair]:
    """Every feedback matrix below ``module`` beside its weight.

    Args:
        module: a module that :func:`lit_credit.feedback.add_feedback` converted.

    Returns:
        Name of the layer to the pair, in the order of registration; an attention layer has the
        entries ``<name>.q_proj``, ``k_proj``, ``v_proj`` and ``out_proj``. Where one weight serves
        several layers each has an entry.

    Example:
        >>> from lit_credit.feedback import add_feedback
        >>> net = add_feedback(nn.Sequential(nn.Linear(3, 2)), distribution="constant")
        >>> feedback_layers(net)["0"].feedback
        tensor([[0.7071, 0.7071, 0.7071],
                [0.7071, 0.7071, 0.7071]])
    """
    pairs = {}
    for name, layer, weight_name, buffer_name in _matrices(module):
        weight = getattr(layer, weight_name).detach()
        feedback = effective_feedback(getattr(layer, buffer_name), layer.signs(weight))
        count = _stacked(weight_name)
        projection = weight_name.removesuffix("_weight") if weight_name != "weight" else ""
        labels = ["q_proj", "k_proj", "v_proj"] if count == 3 else [projection]
        for label, b, w in zip(labels, feedback.chunk(count), weight.chunk(count), strict=True):
            pairs[".".join(filter(None, (name, label)))] = FeedbackPair(b, w)
    return pairs


@torch.no_grad()
def redraw_feedback(module: nn.Module, seed: int) -> None:
    """Draw every feedback matrix below ``module`` anew, in place, as its layer's recipe says.

    The matrices depend on ``seed`` and on the names of the weights alone. With a new seed for each
    batch and ``sign="weight"`` this is brSF, batch-wise random magnitudes with concordant signs.

    Args:
        module: a module that :func:`lit_credit.feedback.add_feedback` converted.
        seed: seed of all the matrices.

    Raises:
        ValueError: if there is no feedback, or one that is made of its weight.

    Reference:
        Liao, Leibo, Poggio, How Important is Weight Symmetry in Backpropagation?, 2016,
        arXiv:1510.05067.
    """
    matrices = list(_matrices(module))
    if not matrices:
        raise ValueError("`module` has no feedback layers to redraw: call `add_feedback` first.")
    fixed = ("weight", "weight_std")
    copies = [name for name, layer, *_ in matrices if layer.recipe.distribution in fixed]
    if copies:
        kind = matrices[0][1].recipe.distribution
        raise ValueError(
            f"`module`: the feedback of {choice(copies)} is made of the weight as it was "
            f"(distribution={kind!r}) and cannot be redrawn. Choose a random `distribution`."
        )
    drawn: dict[int, Tensor] = {}
    for name, layer, weight_name, buffer_name in matrices:
        key = id(getattr(layer, weight_name))
        if key not in drawn:
            transposed = isinstance(layer, FeedbackTransposed)
            drawn[key] = draw_for(layer, name, weight_name, layer.recipe, seed, transposed)
        getattr(layer, buffer_name).copy_(drawn[key])


def _matrices(module: nn.Module) -> Iterator[tuple[str, FeedbackLayer, str, str]]:
    """Name of the layer, the layer, name of the weight, name of the feedback."""
    for name, layer in module.named_modules():
        if isinstance(layer, FeedbackLayer):
            for weight_name, buffer_name in feedback_names(layer).items():
                yield name, layer, weight_name, buffer_name


def _stacked(weight_name: str) -> int:
    return 3 if weight_name == "in_proj_weight" else 1
