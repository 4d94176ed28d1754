"""Linear probes in closed form: what can be read off features."""

from typing import NamedTuple

import torch
from torch import Tensor

from lit_credit.functional._rows import magnitude
from lit_credit.functional._shapes import check_shapes

__all__ = ["RidgeProbe", "RidgeSums", "ridge_of_sums", "ridge_probe"]


class RidgeProbe(NamedTuple):
    """A linear map y = x W + b."""

    weight: Tensor
    """W (d, c), float64."""
    bias: Tensor
    """b (c,), float64."""

    def __call__(self, x: Tensor) -> Tensor:
        """The predictions (n, c) float64 for features (n, d)."""
        return x.to(self.weight) @ self.weight + self.bias


class RidgeSums(NamedTuple):
    """What a ridge probe needs of its rows: sums, which add up over chunks."""

    rows: Tensor
    """n, a number in float64."""
    x: Tensor
    """Sum of x, (d,)."""
    y: Tensor
    """Sum of y, (c,)."""
    xx: Tensor
    """Sum of x x^T, (d, d)."""
    xy: Tensor
    """Sum of x y^T, (d, c)."""

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> "RidgeSums":
        """The sums of features (n, d) and targets (n, c), in float64."""
        x, y = x.detach().double(), y.detach().to(x.device).double()
        return cls(x.new_tensor(len(x)), x.sum(0), y.sum(0), x.mT @ x, x.mT @ y)

    def add(self, other: "RidgeSums") -> None:
        """Add the sums of other rows, in place."""
        for mine, more in zip(self, other, strict=True):
            mine.add_(more)


def ridge_probe(x: Tensor, y: Tensor, strength: float = 0.1) -> RidgeProbe:
    r"""Fit y = x W + b by ridge regression on standardised features, in closed form.

    .. math:: \min_{V, b}\ \frac1n \sum_n \|y_n - b - V^\top z_n\|^2 + \lambda \|V\|_F^2,
        \qquad z_n = (x_n - \mu) / \sigma

    The features z have mean 0 and variance 1, so that :math:`\lambda` is relative: it does not
    depend on the scale of x nor on n. Features that do not vary get no weight. If there are more
    features than rows, the dual problem of size n is solved; its solution is the same.

    Args:
        x: (n, d) features.
        y: (n, c) targets; for classes the one-hot rows, whose largest prediction is the class.
        strength: :math:`\lambda`, above 0.

    Returns:
        W = diag(1 / sigma) V and b; NaN without rows, or if an entry is not finite.

    Raises:
        ValueError: if the shapes do not fit, or ``strength`` is not above 0.

    Example:
        >>> import torch
        >>> x = torch.tensor([[-1.0], [1.0]])
        >>> round(ridge_probe(x, 3 * x, strength=0.5).weight.item(), 6)
        2.0

    Reference:
        Hoerl, Kennard, Ridge regression: biased estimation for nonorthogonal problems, 1970,
        Technometrics 12(1).
    """
    check_shapes("(n, d), (n, c)", x=x, y=y)
    if not strength > 0:
        raise ValueError(f"`strength` is {strength}, expected a number above 0.")
    x, y = x.detach().double(), y.detach().double()
    scale = magnitude(x, 0)  # down to a power of two: to divide by it rounds nothing
    x = x / scale
    # Around the first row: a large mean does not hide a small variance, and a feature that does not
    # vary is exactly zero.
    shift = x[:1].sum(0)
    if len(x) >= x.shape[1]:
        found = ridge_of_sums(RidgeSums.of(x - shift, y), strength, shift)
    else:
        found = _dual(x - shift, y, strength, shift)
    return RidgeProbe(found.weight / scale.reshape(-1, 1), found.bias)


def ridge_of_sums(sums: RidgeSums, strength: float, shift: Tensor) -> RidgeProbe:
    """The ridge probe of rows of which only sums are known; see :func:`ridge_probe`.

    Args:
        sums: sums of x - shift, and of y.
        strength: see :func:`ridge_probe`.
        shift: (d,) a vector near the rows, such as the first of them.
    """
    mean, target = sums.x / sums.rows, sums.y / sums.rows
    covariance = sums.xx / sums.rows - torch.outer(mean, mean)
    inverse = _inverse_scale(covariance.diagonal())
    gram = covariance * torch.outer(inverse, inverse)
    cross = (sums.xy / sums.rows - torch.outer(mean, target)) * inverse[:, None]
    weight = _solved(gram, cross, strength) * inverse[:, None]
    return RidgeProbe(weight, target - (shift + mean) @ weight)


def _dual(x: Tensor, y: Tensor, strength: float, shift: Tensor) -> RidgeProbe:
    """The ridge probe of fewer rows than features; x is relative to the shift."""
    n = max(len(x), 1)
    mean, target = x.sum(0) / len(x), y.sum(0) / len(x)  # NaN without rows
    z = x - mean
    inverse = _inverse_scale(z.square().sum(0) / len(x))
    z = z * inverse
    weight = inverse[:, None] * (z.mT @ (_solved(z @ z.mT / n, y - target, strength) / n))
    weight = torch.where(target.isfinite() & mean.isfinite().all(), weight, torch.nan)
    return RidgeProbe(weight, target - (shift + mean) @ weight)


def _inverse_scale(variance: Tensor) -> Tensor:
    """1 / sigma (d,), and 0 for a feature that does not vary."""
    return torch.where(variance == 0, 0.0, variance.clamp(min=0).rsqrt())


def _solved(gram: Tensor, target: Tensor, strength: float) -> Tensor:
    """(gram + strength I)^-1 target; NaN if a number is not finite."""
    a = gram + strength * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    if not (a.isfinite().all() and target.isfinite().all()):
        return torch.full_like(target, torch.nan)
    factor, failed = torch.linalg.cholesky_ex(a)
    if failed:
        return torch.full_like(target, torch.nan)
    return torch.cholesky_solve(target, factor)
