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
        smallest: () the smallest eigenvalue, from above.
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
    both_ends: bool = True,
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
        tolerance: stop when the residuals of the largest eigenvalues are at most this times the
            eigenvalue, and with ``both_ends`` that of the smallest is at most this times the
            largest magnitude.
        both_ends: go on until the smallest eigenvalue is known too.
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
    (start,) = in_float32(start)
    done = _Lanczos(start / frobenius_norm(start), keeps_all)
    found = None
    for _ in range(min(iterations, len(start))):
        if not done.step(product):
            return _undefined(count)
        found = done.ends(count)
        at_largest = (found.residuals <= tolerance * found.largest.abs()).all()
        at_smallest = not both_ends or done.residual_of_smallest <= tolerance * done.size
        if done.is_exhausted or (at_largest and at_smallest):
            break
    return _undefined(count) if found is None else found


class _Lanczos:
    """Steps of the method of Lanczos.

    Args:
        start: a vector of length 1.
        keeps_all: keep all vectors, not only two.
    """

    def __init__(self, start: Tensor, keeps_all: bool) -> None:
        self.keeps_all = keeps_all
        self.next, self.basis = start, list[Tensor]()
        self.alphas, self.betas = list[float](), list[float]()
        self.off = 0.0
        self.theta = self.bounds = start.new_empty(0)

    def step(self, product: Callable[[Tensor], Tensor]) -> bool:
        """Multiply once; False if the product is not finite."""
        v, before = self.next, self.basis[-1:]
        w = _checked(product(v), v)
        if not bool(w.isfinite().all() and v.isfinite().all()):
            return False
        self.alphas.append(float(v @ w))
        for u, beta in zip(before, self.betas[-1:], strict=True):
            self.off = max(self.off, abs(float(u @ w) - beta))
        self.basis = [*self.basis, v] if self.keeps_all else [*before, v]
        for u in self.basis * 2:
            w -= (u @ w) * u
        self.betas.append(float(frobenius_norm(w)))
        self.next = w / self.betas[-1]
        self._solve()
        return True

    def _solve(self) -> None:
        diagonal = torch.tensor(self.alphas, dtype=torch.float64)
        beside = torch.tensor(self.betas[:-1], dtype=torch.float64)
        matrix = torch.diag(diagonal) + torch.diag(beside, 1) + torch.diag(beside, -1)
        self.theta, s = torch.linalg.eigh(matrix)
        self.bounds = self.betas[-1] * s[-1].abs()

    @property
    def size(self) -> float:
        """The largest eigenvalue in magnitude so far."""
        return float(self.theta.abs().max())

    @property
    def is_exhausted(self) -> bool:
        """Whether what remains of the last product is rounding."""
        eps = torch.finfo(self.next.dtype).eps
        return self.betas[-1] <= eps * math.sqrt(len(self.next)) * self.size

    @property
    def residual_of_smallest(self) -> float:
        return float(self.bounds[0])

    def ends(self, count: int) -> ExtremeEigenvalues:
        """The ends of the spectrum so far."""
        missing = self.theta.new_full((max(count - len(self.theta), 0),), math.nan)
        largest, bounds = self.theta.flip(0)[:count], self.bounds.flip(0)[:count]
        return ExtremeEigenvalues(
            torch.cat([largest, missing]),
            self.theta[0],
            torch.cat([bounds, missing]),
            self.theta.new_tensor(self.off / self.size if self.size else 0.0),
        )


def _checked(w: Tensor, v: Tensor) -> Tensor:
    if w.shape != v.shape:
        raise ValueError(
            f"`product` returns {tuple(w.shape)} for a vector {tuple(v.shape)}, expected one shape."
        )
    return w.detach().to(v.dtype, copy=True)


def _undefined(count: int) -> ExtremeEigenvalues:
    nan = torch.full((count,), math.nan, dtype=torch.float64)
    return ExtremeEigenvalues(nan, nan[0].clone(), nan.clone(), nan[0].clone())
