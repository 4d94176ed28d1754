"""How close a forward weight has come to its feedback weight."""

import torch
from torch import Tensor

from lit_credit.functional._rows import check_same_shape, in_float64, scaled_rows
from lit_credit.functional.norms import frobenius_norm

__all__ = ["norm_ratio", "weight_angle"]


def weight_angle(weight: Tensor, feedback: Tensor) -> Tensor:
    r"""Angle between a weight and its feedback weight, both read as one long vector.

    .. math:: \theta = 2 \, \mathrm{atan2}(\|u - v\|, \|u + v\|), \quad
        u = W / \|W\|_F, \; v = B / \|B\|_F

    Complex numbers are read as two, so that the product is the real part of that of vectors.
    This equals :math:`\arccos \langle u, v \rangle` and keeps its digits near 0 and 180 degrees,
    where the arc cosine loses half of them.

    Args:
        weight: W, any shape.
        feedback: B, of the same shape as W (transpose it if it is stored as it is applied).

    Returns:
        () float64, degrees in [0, 180]; NaN where either is zero or not finite.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> angle = weight_angle(torch.eye(2), torch.tensor([[1.0, -1.0], [1.0, 1.0]]))
        >>> round(angle.item(), 9)
        45.0

    Reference:
        Lillicrap, Cownden, Tweed, Akerman, "Random synaptic feedback weights support error
        backpropagation for deep learning", 2016, doi:10.1038/ncomms13276.
    """
    check_same_shape(weight, feedback, ("weight", "feedback"))
    (w, _), (b, _) = (scaled_rows(in_float64(x).reshape(1, -1), "x") for x in (weight, feedback))
    u, v = w / frobenius_norm(w), b / frobenius_norm(b)
    return torch.rad2deg(2 * torch.atan2(frobenius_norm(u - v), frobenius_norm(u + v)))


def norm_ratio(weight: Tensor, feedback: Tensor) -> Tensor:
    r"""Norm of the feedback weight over the norm of the weight.

    .. math:: r = \|B\|_F / \|W\|_F

    Args:
        weight: W, any shape.
        feedback: B, any shape.

    Returns:
        () float64; NaN where W is zero or either is not finite.

    Example:
        >>> import torch
        >>> norm_ratio(torch.eye(4), 3 * torch.eye(4)).item()
        3.0
    """
    w, b = frobenius_norm(in_float64(weight)), frobenius_norm(in_float64(feedback))
    defined = (w > 0) & w.isfinite() & b.isfinite()
    return torch.where(defined, b / w, torch.nan)
