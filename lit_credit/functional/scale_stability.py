"""Three flags that tell when accuracy and cosine do not mean what they seem to."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lit_credit.functional._shapes import check_shapes

__all__ = ["ScaleFlags", "growth", "scale_flags"]

# Accuracies are ratios of counts: a difference that is 0.02 on paper may be 0.01999... in float.
_ROUNDING = 1e-9


class ScaleFlags(NamedTuple):
    """Each is 1.0 (raised), 0.0 (not raised) or NaN (undefined: something was not measured)."""

    scale_unstable: float
    depth_unused: float
    reference_invalid: float


def growth(last: Tensor | float, first: Tensor | float) -> Tensor:
    r"""Factor by which a norm grew over training.

    .. math:: \gamma = \|h\|_{\text{end}} / \|h\|_{\text{start}}

    Args:
        last: norm at the end, any shape.
        first: norm at the start, of a shape that broadcasts.

    Returns:
        float64 of the broadcast shape; infinite where only ``last`` is, NaN where ``first`` is
        zero or not finite.

    Raises:
        ValueError: if the shapes do not broadcast.

    Example:
        >>> growth(1.9e5, 9.5).item()
        20000.0
    """
    end, start = (torch.as_tensor(x, dtype=torch.float64).detach() for x in (last, first))
    check_shapes("(...), (...)", last=end, first=start)
    return torch.where((start != 0) & start.isfinite(), end / start, torch.nan)


def scale_flags(
    growth: float = math.nan,
    accuracy: float = math.nan,
    frozen_accuracy: float = math.nan,
    reference_cosine: float = math.nan,
    *,
    growth_limit: float = 50.0,
    accuracy_margin: float = 0.02,
    reference_limit: float = 0.99,
) -> ScaleFlags:
    r"""Judge a run by scale stability, depth utility and reference validity.

    .. math:: \gamma > \gamma_{\max}, \quad
        \mathrm{acc} - \mathrm{acc}_{\text{frozen}} < \delta, \quad
        \cos(g_{32}, g_{64}) < c_{\min}

    Args:
        growth: factor by which the stream's norm grew, see :func:`growth`.
        accuracy: of the run, a fraction in [0, 1].
        frozen_accuracy: of the same net with its blocks frozen at initialisation, a fraction.
        reference_cosine: between the float32 and the float64 gradient, the smallest over layers.
        growth_limit: the paper's 50.
        accuracy_margin: the paper's 2 points, as a fraction.
        reference_limit: cosine below which the float32 gradient is no reference to measure by.

    Returns:
        One flag a question; NaN where a quantity it needs is NaN.

    Example:
        >>> scale_flags(growth=20000.0, accuracy=0.31, frozen_accuracy=0.35)
        ScaleFlags(scale_unstable=1.0, depth_unused=1.0, reference_invalid=nan)

    Reference:
        Hao, Wan, Zhai, "What Accuracy and Gradient Cosine Miss: Evaluating Feedback Alignment via
        Scale Stability, Reference Validity, and Depth Utility", 2026, arXiv:2606.21126.
    """
    above = accuracy - frozen_accuracy
    return ScaleFlags(
        _flag(growth, growth > growth_limit),
        _flag(above, above < accuracy_margin - _ROUNDING),
        _flag(reference_cosine, reference_cosine < reference_limit),
    )


def _flag(quantity: float, raised: bool) -> float:
    return math.nan if math.isnan(quantity) else float(raised)
