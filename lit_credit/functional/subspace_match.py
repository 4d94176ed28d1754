"""Do two sets of directions in the stream meet in one subspace?"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_credit.functional._linalg import check_ranks, inner, singular_values
from lit_credit.functional._rows import in_float32
from lit_credit.functional._shapes import check_shapes

__all__ = ["SubspaceMatch", "principal_angles", "subspace_match"]


class SubspaceMatch(NamedTuple):
    """Cosines between two subspaces, (..., ranks), from 0 (orthogonal) to 1 (the same)."""

    largest: Tensor
    """Of the smallest principal angle: what the best shared direction is worth."""
    rms: Tensor
    """Root mean square over all principal angles."""


def subspace_match(
    reading: Tensor, writing: Tensor, ranks: Sequence[int], own: Tensor | None = None
) -> SubspaceMatch:
    r"""How well the r leading directions that are read meet the r leading ones that are written.

    .. math:: s = \mathrm{svd}(V_r^\top U_r), \quad \text{largest} = s_1, \quad
        \text{rms} = \sqrt{\tfrac1r \textstyle\sum_i s_i^2}

    for every rank r; the sums of squares come from one cumulative sum over :math:`V^\top U`. What
    random subspaces have is :func:`match_baseline`.

    Args:
        reading: V, (..., d, n), orthonormal columns, the most important first.
        writing: U, (..., d, n'), likewise. ``reading[:, None]`` and ``writing[None]`` give all
            pairs.
        ranks: each r, at most n and n'.
        own: a further rank of each pair, (...) whole numbers, the last one of those returned.

    Returns:
        Two tensors (..., ranks); NaN where a direction is NaN.

    Raises:
        ValueError: if the subspaces are not of one space, or a rank is not from 1 to the number of
            columns.

    Example:
        >>> match = subspace_match(torch.eye(4), torch.eye(4).roll(1, 0), ranks=[1, 2])
        >>> match.largest, match.rms
        (tensor([0., 1.]), tensor([0.0000, 0.7071]))

    Reference:
        Song, Xu, Zhong, "Out-of-distribution generalization via composition: a lens through
        induction heads in Transformers", 2024, arXiv:2408.09503.
    """
    check_shapes("(..., d, n), (..., d, n')", reading=reading, writing=writing)
    each = [] if own is None else sorted(set(own.flatten().tolist()))
    for name, side in (("reading", reading), ("writing", writing)):
        check_ranks([*ranks, *each], side.shape[-1], name)
    reading, writing = in_float32(reading, writing)
    most = max([*ranks, *each])
    overlap = inner(reading[..., :most], writing[..., :most])
    squares = overlap.square().cumsum(-1).cumsum(-2).diagonal(dim1=-2, dim2=-1)
    pairs = overlap.shape[:-2]
    r = torch.tensor(ranks, device=overlap.device).expand(*pairs, -1)
    largest = torch.stack([singular_values(overlap[..., :n, :n])[..., 0] for n in ranks], -1)
    if own is not None:
        own = own.to(overlap.device).expand(pairs)
        r = torch.cat([r, own[..., None]], -1)
        found = largest.new_empty(pairs)
        for n in each:
            found[own == n] = singular_values(overlap[own == n][..., :n, :n])[..., 0]
        largest = torch.cat([largest, found[..., None]], -1)
    rms = (squares.gather(-1, r - 1) / r).sqrt()
    # Rounding may carry a cosine of 1 beyond it.
    return SubspaceMatch(largest.clamp(max=1), rms.clamp(max=1))


def principal_angles(reading: Tensor, writing: Tensor) -> Tensor:
    r"""Angles between two subspaces, accurate however small they are.

    .. math:: \theta_i = \mathrm{atan2}(\sin \theta_i, \cos \theta_i), \quad
        \cos \theta = \mathrm{svd}(V^\top U), \quad \sin \theta = \mathrm{svd}(U - V V^\top U)

    Args:
        reading: V, (..., d, n), orthonormal columns.
        writing: U, (..., d, n'), orthonormal columns.

    Returns:
        (..., min(n, n')) radians in [0, pi / 2], ascending; NaN where a direction is NaN.

    Raises:
        ValueError: if the subspaces are not of one space.

    Example:
        >>> angle = torch.tensor(1e-6, dtype=torch.float64)
        >>> u = torch.stack([angle.cos(), angle.sin()])[:, None]
        >>> principal_angles(torch.eye(2, 1, dtype=torch.float64), u).item()
        1e-06

    Reference:
        Knyazev, Argentati, "Principal angles between subspaces in an A-based scalar product", 2002,
        doi:10.1137/S1064827500377332.
    """
    check_shapes("(..., d, n), (..., d, n')", reading=reading, writing=writing)
    reading, writing = in_float32(reading, writing)
    if reading.shape[-1] < writing.shape[-1]:
        reading, writing = writing, reading
    overlap = inner(reading, writing)
    cosines = singular_values(overlap)
    sines = singular_values(writing - reading @ overlap).flip(-1)
    return torch.atan2(sines, cosines)
