"""What random subspaces have in common."""

import math
from typing import NamedTuple

__all__ = ["MatchBaseline", "match_baseline"]

# Mean and standard deviation of the Tracy-Widom law of real matrices.
_TW_MEAN, _TW_SD = -1.2065335745820, 1.2679830576869
# Of the law exp(-t/2 - sqrt t) that the smallest eigenvalue of a square Gaussian matrix follows.
_EDGE_MEAN, _EDGE_SD = 0.6886409151624, 1.0173008459957


class MatchBaseline(NamedTuple):
    """Mean and standard deviation of both numbers of a subspace match at one rank."""

    rms_mean: float
    rms_sd: float
    largest_mean: float
    largest_sd: float


def match_baseline(d: int, rank: int, other_rank: int | None = None) -> MatchBaseline:
    r"""The subspace match of two independent, uniformly random subspaces, without a simulation.

    .. math:: p = \min(r, r'), \quad x = \tfrac1p \mathrm{tr} P_1 P_2, \quad
        \mathbb{E} x = \frac{r r'}{d p}, \quad
        \mathrm{Var} \, x = \frac{2 r r' (d - r)(d - r')}{p^2 d^2 (d - 1)(d + 2)}

    and rms is the square root of x, taken to follow the Beta distribution of these moments, which
    is exact for p = 1. Of the largest cosine, the logit of its square follows a Tracy-Widom law
    (Johnstone's theorem 1): within .004 for ranks from 10, or .015 for ranks from 2.

    Args:
        d: width of the stream, at least 2.
        rank: r of one subspace, from 1 to d.
        other_rank: r' of the other; None for the same.

    Returns:
        Four numbers. Subspaces that cannot avoid each other, r + r' > d, share a direction: largest
        is 1 with no spread; r + r' = d is the edge of that, and has its own law.

    Raises:
        ValueError: if a rank is not from 1 to d, or d is below 2.

    Example:
        >>> [round(number, 3) for number in match_baseline(64, 10)]
        [0.395, 0.023, 0.672, 0.046]

    Reference:
        Johnstone, "Multivariate analysis and Jacobi ensembles: largest eigenvalue, Tracy-Widom
        limits and rates of convergence", 2008, arXiv:0803.3408, theorem 1. Edelman, "Eigenvalues
        and condition numbers of random matrices", 1988, doi:10.1137/0609045, for the edge.
    """
    p, n = sorted((rank, rank if other_rank is None else other_rank))
    if d < 2 or p < 1 or n > d:
        raise ValueError(
            f"`d` is {d} and the ranks are {p} and {n}, expected ranks from 1 to `d`, which is at "
            "least 2."
        )
    rms = _root_of_beta(n / d, 2 * n * (d - p) * (d - n) / (p * d**2 * (d - 1) * (d + 2)))
    if p + n > d:
        return MatchBaseline(*rms, 1.0, 0.0)
    if p == 1:
        return MatchBaseline(*rms, *rms)
    if p + n == d:
        # 1 - s^2 is t / (p n), and so small that s is 1 - t / (2 p n).
        return MatchBaseline(*rms, 1 - _EDGE_MEAN / (2 * p * n), _EDGE_SD / (2 * p * n))
    return MatchBaseline(*rms, *_largest(d, p, n))


def _root_of_beta(mean: float, variance: float) -> tuple[float, float]:
    """Mean and standard deviation of the square root of a Beta variable."""
    if variance == 0:
        return math.sqrt(mean), 0.0
    both = mean * (1 - mean) / variance - 1
    a = mean * both
    lg = math.lgamma
    root = math.exp(lg(a + 0.5) + lg(both) - lg(a) - lg(both + 0.5))
    return root, math.sqrt(mean - root**2)


def _largest(d: int, p: int, n: int) -> tuple[float, float]:
    """Mean and standard deviation of s, whose square has a logit that is Tracy-Widom."""
    m = d - n
    total = m + n - 1
    gamma = 2 * math.asin(math.sqrt((p - 0.5) / total))
    phi = 2 * math.asin(math.sqrt((n - 0.5) / total))
    center = 2 * math.log(math.tan((phi + gamma) / 2))
    cubed = 16 / total**2 / (math.sin(phi + gamma) ** 2 * math.sin(phi) * math.sin(gamma))
    scale = cubed ** (1 / 3)
    logit, sd = center + scale * _TW_MEAN, scale * _TW_SD
    square = 1 / (1 + math.exp(-logit))
    # Both from the Taylor series of s = sqrt(sigmoid(logit)).
    slope = math.sqrt(square) * (1 - square) / 2
    return math.sqrt(square) + slope * (1 - 3 * square) / 4 * sd**2, slope * sd
