"""Drawing, reading and redrawing the feedback matrices of a net."""

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
    """A feedback matrix, and the weight of the same shape that it replaces.

    Attributes:
        feedback: B as the error meets it, signs included.
        weight: W, or None if B does not replace a single weight.
    """

    feedback: Tensor
    weight: Tensor | None


def feedback_names(layer: nn.Module) -> dict[str, str]:
    """Name of each weight that gets a feedback, with the name of the buffer that holds it."""
    if not isinstance(layer, nn.MultiheadAttention):
        return {"weight": "feedback"}
    fused = layer.in_proj_weight is not None
    names = ["in_proj"] if fused else ["q_proj", "k_proj", "v_proj"]
    return {f"{name}_weight": f"{name}_feedback" for name in names}


def draw_for(
    layer: nn.Module, name: str, weight_name: str, recipe: Recipe, seed: int, transposed: bool
) -> Tensor:
    """Draw the feedback of one weight, (out, in / groups, *kernel); magnitudes if it takes signs.

    Fans are counted as in ``torch.nn.init``, which ignores a stride. A fused projection is drawn as
    three matrices. Each weight has its own random stream, from the names of the layer and of the
    weight. The feedback of a transposed weight is the transpose of what a Linear of the same name
    would get.
    """
    # A compiled net gets the same matrices as the uncompiled net.
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
    """Every feedback matrix below ``module``, with its weight.

    Args:
        module: a module that :func:`lit_credit.feedback.add_feedback` converted.

    Returns:
        A pair for the name of each layer, in the order of registration. An attention layer has the
        entries ``<name>.q_proj``, ``k_proj``, ``v_proj`` and ``out_proj``. If several layers share
        a weight, each has an entry.

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
    """Redraw every feedback matrix below ``module`` in place, by the recipe of its layer.

    The matrices depend only on ``seed`` and the names of the weights. With a new seed for each
    batch and ``sign="weight"`` this is brSF, batch-wise random magnitudes with concordant signs.

    Args:
        module: a module that :func:`lit_credit.feedback.add_feedback` converted.
        seed: seed of all the matrices.

    Raises:
        ValueError: if there is no feedback, or if a feedback was computed from its weight.

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
