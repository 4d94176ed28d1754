"""How far an update moves weights, and which units of an activation do nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_credit.functional._rows import check_same_shape, in_float64
from lit_credit.functional.norms import frobenius_norm, sample_norms

__all__ = ["dead_share", "joint_norm", "saturated_share", "update_ratio"]


def joint_norm(tensors: Sequence[Tensor]) -> Tensor:
    r"""Euclidean norm of several tensors, read as one long vector.

    .. math:: \|x\| = \sqrt{\textstyle\sum_i \|x_i\|_F^2}

    Args:
        tensors: any number of tensors of any shapes.

    Returns:
        () float64 in the unit of the tensors; NaN without a tensor.

    Example:
        >>> joint_norm([torch.tensor([3.0, 0.0]), torch.tensor(4.0)]).item()
        5.0
    """
    if not tensors:
        return torch.tensor(torch.nan, dtype=torch.float64)
    norms = torch.stack([frobenius_norm(x).double() for x in tensors])
    return sample_norms(norms[None])[0]


def update_ratio(updates: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    r"""Length of an update relative to the weights that it changed.

    .. math:: r = \|\Delta W\| / \|W\|

    A healthy run has about 1e-3 under the usual optimizers: below 1e-4 the weights hardly move,
    above 1e-2 a few steps replace them.

    Args:
        updates: the changes of the weights, of any shapes.
        weights: the weights.

    Returns:
        () float64; NaN where the weights are zero, or a tensor is not finite, or there is none.

    Example:
        >>> update_ratio([torch.tensor([0.75, 1.0])], [torch.tensor([3.0, 4.0])]).item()
        0.25
    """
    change, size = joint_norm(updates), joint_norm(weights)
    defined = (size > 0) & size.isfinite() & change.isfinite()
    return torch.where(defined, change / size, torch.nan)


def dead_share(low: Tensor, high: Tensor, tolerance: float = 1e-6) -> Tensor:
    r"""Share of an activation's units that give one value, such as 0, on every sample.

    .. math:: \frac1C \sum_c \mathbf 1[h_c - l_c \le \tau \max_{c'} \max(|l_{c'}|, |h_{c'}|)]

    The tolerance counts units as dead whose output differs only by rounding, or vanishes beside
    that of the others, such as those of GELU far below zero.

    Args:
        low: (C,) l, the smallest value of each unit over all samples.
        high: (C,) h, the largest value.
        tolerance: tau, relative to the largest magnitude of all units.

    Returns:
        () float64 in [0, 1]; NaN without units, or if a value is not finite.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> dead_share(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 3.0])).item()
        0.5
    """
    check_same_shape(low, high, ("low", "high"))
    low, high = in_float64(low.detach()), in_float64(high.detach())
    if low.numel() == 0 or not (low.isfinite() & high.isfinite()).all():
        return low.new_tensor(torch.nan)
    largest = torch.maximum(low.abs(), high.abs()).max()
    # Each side is scaled before the difference, which could overflow.
    scale = torch.where(largest > 0, largest, 1.0)
    return (high / scale - low / scale <= tolerance).double().mean()


def saturated_share(x: Tensor, low: float, high: float, margin: float = 0.01) -> Tensor:
    r"""Share of the values of a bounded activation that lie at a bound.

    A value is at a bound if its distance to it is at most ``margin`` times the range of the
    activation. For ``tanh`` these are the values of magnitude 0.98 and more: its derivative is
    below 0.04 there.

    Args:
        x: activations, any shape.
        low: the lower bound: -1 for ``tanh``, 0 for the sigmoid.
        high: the upper bound.
        margin: fraction of the range, from 0 to 0.5.

    Returns:
        () float64 in [0, 1]; NaN without values, or if a value is not finite.

    Example:
        >>> saturated_share(torch.tensor([-0.999, 0.0, 0.5, 1.0]), -1, 1).item()
        0.5
    """
    x = in_float64(x.detach())
    if x.numel() == 0 or not x.isfinite().all():
        return x.new_tensor(torch.nan)
    room = margin * (high - low)
    return ((x <= low + room) | (x >= high - room)).double().mean()
