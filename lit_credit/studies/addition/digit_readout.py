"""What a map to the stream reads of the digits' points."""

from typing import NamedTuple

import torch
from torch import Tensor

from lit_credit.functional._rows import magnitude
from lit_credit.functional._shapes import check_shapes

__all__ = ["DigitReadout", "digit_readout"]


class DigitReadout(NamedTuple):
    """What is read of each digit, and what becomes of it."""

    values: Tensor
    """Of each digit, (10,), rising with it; in units of the singular value."""
    linearity: Tensor
    """R^2 of the best straight line through them; NaN if all are equal."""
    share: Tensor
    """Of the map's squared norm, in the one direction that is read; 1 for a map of rank one."""
    read: Tensor
    """The direction that is read, (2,), of norm 1."""
    write: Tensor
    """What it is turned into, (5,), of norm 1."""


def digit_readout(points: Tensor, matrix: Tensor) -> DigitReadout:
    r"""The leading direction that a map M reads, and each digit's place along it.

    .. math:: M \approx \sigma u v^\top, \quad f(d) = \sigma \, e_d^\top v

    For M = b a^T H it is :math:`|b| \, e_d^\top H^\top a`. An f that is a straight line lets
    attention, which takes means, add digits.

    Args:
        points: e, one row a digit, (D, 2).
        matrix: M, (d, 2).

    Returns:
        See :class:`DigitReadout`; NaN where M is 0 or not finite, and but
        for ``share`` where a point is not.

    Raises:
        ValueError: if the shapes are others, or there is no digit or nothing to write to.

    Example:
        >>> points = torch.stack([torch.arange(10.0), torch.ones(10)], 1)
        >>> found = digit_readout(points, torch.tensor([[2.0, 0.0], [0.0, 0.0]]))
        >>> found.values[:3], found.linearity
        (tensor([0., 2., 4.]), tensor(1.))
    """
    check_shapes("(D, 2), (d, 2)", points=points, matrix=matrix)
    if not (len(points) and len(matrix)):
        raise ValueError(
            f"`points` has {len(points)} rows and `matrix` {len(matrix)}, expected at least one."
        )
    m = matrix.detach().double()
    scale = magnitude(m, (0, 1))
    m = m / scale
    if not (m.isfinite().all() and m.any()):
        m = torch.full_like(m, torch.nan)
        u, s, vh = torch.full_like(m[:, :2], torch.nan), m[0], m[:2]
    else:
        u, s, vh = torch.linalg.svd(m, full_matrices=False)
    e = points.detach().double()
    values = s[0] * scale[0, 0] * e @ vh[0]
    digits = torch.arange(len(e), device=e.device).double()
    # From the first digit's, so that equal values leave nothing of rounding.
    above = (e - e[0]) / magnitude(e, (0, 1)) @ vh[0]
    digits, centred = digits - digits.mean(), above - above.mean()
    slope = digits @ centred
    sign = torch.where(slope < 0, -1.0, 1.0).masked_fill(slope.isnan(), torch.nan)
    linearity = slope.square() / (digits.square().sum() * centred.square().sum())
    share = s[0].square() / s.square().sum()
    found = (sign * values, linearity, share, sign * vh[0], sign * u[:, 0])
    dtype = torch.promote_types(matrix.dtype, torch.float32)
    return DigitReadout(*(x.to(dtype) for x in found))
