"""Decompositions of stacked matrices that may be zero or not finite."""

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lit_credit.functional._rows import in_float32, magnitude


class SVD(NamedTuple):
    """A = U diag(s) V^T, with r singular values in descending order."""

    u: Tensor
    """(..., m, r), orthonormal columns."""
    s: Tensor
    """(..., r)."""
    v: Tensor
    """(..., n, r), orthonormal columns."""


def inner(a: Tensor, b: Tensor) -> Tensor:
    """a^T b, (..., k, l), of (..., d, k) and (..., d, l).

    Where the leading dimensions are those of all pairs, (n, 1) and (1, m), this is one product of
    large matrices, while ``a.mT @ b`` would copy both factors once a pair.
    """
    a, b = in_float32(a, b)
    if _one_to_one(a, b):
        return a.mT @ b
    return torch.einsum("...dk,...dl->...kl", a, b)


def outer(a: Tensor, b: Tensor) -> Tensor:
    """A b^T, (..., m, n), of (..., m, k) and (..., n, k); see :func:`inner`."""
    a, b = in_float32(a, b)
    if _one_to_one(a, b):
        return a @ b.mT
    return torch.einsum("...mk,...nk->...mn", a, b)


def triangle(a: Tensor) -> Tensor:
    """T with T^T T = a^T a, (..., min(m, n), n): the R of a = Q R, or a itself if it is short."""
    if a.shape[-2] <= a.shape[-1]:
        return a
    return qr(a, mode="r")[1]


def qr(a: Tensor, mode: Literal["reduced", "r"] = "reduced") -> tuple[Tensor, Tensor]:
    """Q and R of (..., m, n), of which R is NaN for a matrix that is not finite.

    LAPACK leaves R finite where the first entry of a column is NaN. With mode ``r`` there is no Q.
    """
    q, r = torch.linalg.qr(a, mode=mode)
    return q, torch.where(is_finite(a), r, torch.nan)


def svd(a: Tensor) -> SVD:
    """Singular values and vectors of (..., m, n), r = min(m, n).

    A matrix that is not finite has NaN for all of them, where LAPACK would raise. A zero matrix has
    no directions either: its vectors are NaN.
    """
    finite = is_finite(a)
    u, s, vh = torch.linalg.svd(torch.where(finite, a, 0.0), full_matrices=False)
    directed = finite & (s[..., :1, None] > 0)
    if directed.all():
        return SVD(u, s, vh.mT)
    return SVD(
        torch.where(directed, u, torch.nan),
        torch.where(finite.squeeze(-1), s, torch.nan),
        torch.where(directed, vh.mT, torch.nan),
    )


def frobenius(a: Tensor) -> Tensor:
    """Frobenius norm of each matrix, (...), at any scale."""
    norm: Tensor = torch.linalg.matrix_norm(a)
    info = torch.finfo(norm.dtype)
    # So far from the ends that no square has overflowed, and none that counts has vanished.
    sound = (norm > info.tiny**0.5 / info.eps) & norm.isfinite()
    if sound.all():  # scaling takes as long again
        return norm
    scale = magnitude(a, (-2, -1))
    scaled = torch.linalg.matrix_norm(a / scale, keepdim=True) * scale
    return torch.where(sound, norm, scaled[..., 0, 0])


def unit(a: Tensor) -> Tensor:
    """Matrices over their norms; NaN for one that is zero or not finite."""
    return a / frobenius(a)[..., None, None]


def singular_values(a: Tensor) -> Tensor:
    """Singular values (..., min(m, n)), descending; NaN for a matrix that is not finite."""
    finite = is_finite(a)
    if finite.all():
        whole: Tensor = torch.linalg.svdvals(a)
        return whole
    s = torch.linalg.svdvals(torch.where(finite, a, 0.0))
    return torch.where(finite.squeeze(-1), s, torch.nan)


def check_ranks(ranks: Sequence[int], available: int, name: str) -> None:
    """Raise a ValueError unless there are ranks, and each is from 1 to ``available``."""
    if not ranks or min(ranks) < 1 or max(ranks) > available:
        raise ValueError(
            f"`ranks` is {list(ranks)}, expected one or more numbers from 1 to {available}, as "
            f"many as `{name}` has directions. Choose smaller ranks."
        )


def is_finite(a: Tensor) -> Tensor:
    """Which matrices (..., m, n) have only finite entries, (..., 1, 1)."""
    # What is not finite stays so in a sum; asking each entry takes four times as long.
    return a.sum((-2, -1), keepdim=True).isfinite()


def _one_to_one(a: Tensor, b: Tensor) -> bool:
    """Whether broadcasting pairs no matrix of one side with several of the other and back."""
    one, other = a.shape[:-2], b.shape[:-2]
    pairs = map(max, zip_longest(reversed(one), reversed(other), fillvalue=1))
    return math.prod(pairs) == max(one.numel(), other.numel())
