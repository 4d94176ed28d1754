"""The largest and the smallest eigenvalue of a symmetric matrix known by its products."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lit_credit.functional._rows import in_float32
from lit_credit.functional._shapes import check_shapes
from lit_credit.functional.norms import frobenius_norm

__all__ = ["ExtremeEigenvalues", "extreme_eigenvalues"]


class ExtremeEigenvalues(NamedTuple):
    """Both ends of a spectrum, as float64; NaN where a product is not finite.

    Attributes:
        largest: (count,) the largest eigenvalues, in descending order. An eigenvalue is counted
            once, whatever its multiplicity; NaN if fewer were found.
        smallest: () an upper bound of the smallest eigenvalue, close to it after convergence.
        residuals: (count,) the distance of each of ``largest`` to an eigenvalue is at most this.
        asymmetry: () how far the matrix is from a symmetric one, relative to its largest
            eigenvalue in magnitude: rounding if it is symmetric.
    """

    largest: Tensor
    smallest: Tensor
    residuals: Tensor
    asymmetry: Tensor


def extreme_eigenvalues(
    product: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    count: int = 1,
    iterations: int = 20,
    tolerance: float = 0.01,
    keeps_all: bool = True,
) -> ExtremeEigenvalues:
    r"""Eigenvalues at both ends of the spectrum, by the method of Lanczos.

    .. math:: \beta_j v_{j+1} = A v_j - \alpha_j v_j - \beta_{j-1} v_{j-1}, \quad
        \|A u - \theta u\| = \beta_m |s_m|

    The eigenvalues :math:`\theta` of the tridiagonal matrix of :math:`\alpha, \beta` approach those
    of A from inside; s is an eigenvector of it, u that of A. Vectors are orthogonalized twice.

    Args:
        product: maps a vector (n,) to its product with A, (n,).
        start: (n,) the first vector; a random one meets all eigenvectors.
        count: number of largest eigenvalues.
        iterations: the most products.
        tolerance: stop when the residuals are at most this times their eigenvalues.
        keeps_all: orthogonalize against all earlier vectors, and keep them: n ``iterations``
            numbers. False keeps two. The ends of the spectrum stay as exact, but an eigenvalue that
            has converged may come out several times, so ``count`` must be 1.

    Raises:
        ValueError: if ``start`` is not a vector, if ``product`` returns another shape, or if
            ``count`` or ``iterations`` do not fit.

    Example:
        >>> curvature = torch.tensor([5.0, 2.0, -1.0])
        >>> found = extreme_eigenvalues(lambda v: curvature * v, torch.ones(3))
        >>> round(found.largest.item(), 4), round(found.smallest.item(), 4)
        (5.0, -1.0)

    Reference:
        Lanczos, An iteration method for the solution of the eigenvalue problem of linear
        differential and integral operators, 1950, doi:10.6028/jres.045.026.
    """
    check_shapes("(n)", start=start)
    if count < 1 or iterations < 1 or (count > 1 and not keeps_all):
        raise ValueError(
            f"`count` is {count} and `iterations` is {iterations}, expected at least 1, and a "
            "`count` of 1 where `keeps_all` is False."
        )
    (v,) = in_float32(start)
    v, bound = v / frobenius_norm(v), torch.finfo(v.dtype).eps * math.sqrt(max(len(v), 1))
    basis: list[Tensor] = []
    alphas: list[float] = []
    betas: list[float] = []
    asymmetry, found = 0.0, None
    for _ in range(min(iterations, len(v))):
        basis.append(v)
        w = _checked(product(v), v)
        if not w.isfinite().all() or not v.isfinite().all():
            return _undefined(count)
        alphas.append(float(v @ w))
        if betas:
            asymmetry = max(asymmetry, abs(float(basis[-2] @ w) - betas[-1]))
        basis = basis if keeps_all else basis[-2:]
        for u in basis + basis:
            w -= (u @ w) * u
        beta = float(frobenius_norm(w))
        found, size = _ends(alphas, betas, beta, count)
        if beta <= bound * size or bool((found[2] <= tolerance * found[0].abs()).all()):
            break
        betas.append(beta)
        v = w / beta
    if found is None:
        return _undefined(count)
    relative = torch.tensor(asymmetry / size if size else 0.0, dtype=torch.float64)
    return ExtremeEigenvalues(*found, relative)


def _checked(w: Tensor, v: Tensor) -> Tensor:
    if w.shape != v.shape:
        raise ValueError(
            f"`product` returns {tuple(w.shape)} for a vector {tuple(v.shape)}, expected one shape."
        )
    return w.detach().to(v.dtype, copy=True)


def _ends(
    alphas: list[float], betas: list[float], beta: float, count: int
) -> tuple[tuple[Tensor, Tensor, Tensor], float]:
    """Largest, smallest and residuals after some steps, and the largest magnitude."""
    diagonal = torch.tensor(alphas, dtype=torch.float64)
    beside = torch.tensor(betas, dtype=torch.float64)
    matrix = torch.diag(diagonal) + torch.diag(beside, 1) + torch.diag(beside, -1)
    theta, s = torch.linalg.eigh(matrix)
    missing = diagonal.new_full((max(count - len(theta), 0),), math.nan)
    largest = torch.cat([theta.flip(0)[:count], missing])
    residuals = torch.cat([beta * s[-1].abs().flip(0)[:count], missing])
    return (largest, theta[0], residuals), float(theta.abs().max())


def _undefined(count: int) -> ExtremeEigenvalues:
    nan = torch.full((count,), math.nan, dtype=torch.float64)
    return ExtremeEigenvalues(nan, nan[0].clone(), nan.clone(), nan[0].clone())
