"""Decompositions of stacked matrices that may be zero or not finite."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


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
    return torch.einsum("...dk,...dl->...kl", a, b)


def outer(a: Tensor, b: Tensor) -> Tensor:
    """A b^T, (..., m, n), of (..., m, k) and (..., n, k); see :func:`inner`."""
    return torch.einsum("...mk,...nk->...mn", a, b)


def triangle(a: Tensor) -> Tensor:
    """T with T^T T = a^T a, (..., min(m, n), n): the R of a = Q R, or a itself if it is short."""
    if a.shape[-2] <= a.shape[-1]:
        return a
    r: Tensor = torch.linalg.qr(a, mode="r").R
    return r


def svd(a: Tensor) -> SVD:
    """Singular values and vectors of (..., m, n), r = min(m, n).

    A matrix that is not finite has NaN for all of them, where LAPACK would raise. A zero matrix has
    no directions either: its vectors are NaN.
    """
    finite = _is_finite(a)
    u, s, vh = torch.linalg.svd(torch.where(finite, a, 0.0), full_matrices=False)
    directed = finite & (s[..., :1, None] > 0)
    return SVD(
        torch.where(directed, u, torch.nan),
        torch.where(finite.squeeze(-1), s, torch.nan),
        torch.where(directed, vh.mT, torch.nan),
    )


def frobenius(a: Tensor) -> Tensor:
    """Frobenius norm of each matrix, (...)."""
    norm: Tensor = torch.linalg.matrix_norm(a)
    return norm


def singular_values(a: Tensor) -> Tensor:
    """Singular values (..., min(m, n)), descending; NaN for a matrix that is not finite."""
    finite = _is_finite(a)
    s = torch.linalg.svdvals(torch.where(finite, a, 0.0))
    return torch.where(finite.squeeze(-1), s, torch.nan)


def check_ranks(ranks: Sequence[int], available: int, name: str) -> None:
    """Raise a ValueError unless there are ranks, and each is from 1 to ``available``."""
    if not ranks or min(ranks) < 1 or max(ranks) > available:
        raise ValueError(
            f"`ranks` is {list(ranks)}, expected one or more numbers from 1 to {available}, as "
            f"many as `{name}` has directions. Choose smaller ranks."
        )


def _is_finite(a: Tensor) -> Tensor:
    return a.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
