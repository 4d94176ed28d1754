"""What a few seeds can say: paired differences, Holm's correction, the detectable difference."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

import numpy as np

from lit_credit.utils.ranges import check_range

__all__ = [
    "FEWEST",
    "Difference",
    "detectable_difference",
    "holm",
    "paired_difference",
    "welch_difference",
]

FEWEST = 3
"""Smallest number of pairs, or of runs on each side, for an interval and a p value."""
_ROUNDING = 1e-12
"""Spread relative to the values below which differences count as equal."""
_CONFIDENCE = 0.95
_BITS = 64
"""Binary digits by which values are scaled down if their sum is beyond float64."""
_QUANTILES = 20_000
"""Quantiles of the noncentral t distribution's denominator."""


@dataclass(frozen=True)
class Difference:
    """The difference of two means, a - b. A field that is undefined is NaN.

    Attributes:
        n: pairs; without pairs, runs of the smaller side.
        mean: mean difference.
        sd: sample standard deviation of the differences, for n >= 2.
        low: lower end of the 95 % interval, for n >= 3.
        high: upper end of the 95 % interval.
        p: two-sided p value of no difference, for n >= 3.
        paired: whether the values were paired by seed.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float
    p: float
    paired: bool = True


def paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> Difference:
    r"""The mean difference of two groups of runs, paired by seed.

    .. math:: d_i = a_i - b_i, \quad \bar d \pm t_{.975,\, n-1} \, s_d / \sqrt n

    Runs of one seed share initial weights and order of the data. What a seed does to both of them
    cancels in their difference. Seeds that only one group has are left out.

    With fewer than 3 pairs there is neither an interval nor a p value. The same holds if all
    differences are equal: their spread is then unknown, not 0.

    Args:
        a: seed to value; NaN in, NaN out. Infinite values of both signs are NaN too.
        b: seed to value of the baseline.

    Returns:
        The difference. ``n`` is 0 if no seed is in both groups.

    Example:
        >>> found = paired_difference({1: 0.92, 2: 0.95, 3: 0.93}, {1: 0.90, 2: 0.91, 3: 0.90})
        >>> found.n, round(found.mean, 4), round(found.low, 4), round(found.high, 4)
        (3, 0.03, 0.0052, 0.0548)
        >>> round(found.p, 4)
        0.0351

    Reference:
        Student, "The probable error of a mean", 1908.
    """
    seeds = sorted(a.keys() & b.keys())
    pairs = [(float(a[seed]), float(b[seed])) for seed in seeds]
    differences = [x - y for x, y in pairs]
    n, mean, sd = len(seeds), mean_of(differences), sd_of(differences)
    largest = max((abs(x) for pair in pairs for x in pair), default=0.0)
    error = sd / math.sqrt(max(n, 1))
    if sd <= _ROUNDING * largest:
        sd, error = 0.0, math.nan
    return Difference(n, mean, sd, *_interval(mean, error, n - 1, n))


def welch_difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    r"""The difference of the means of two groups that share no seeds, by Welch's t test.

    .. math:: \bar a - \bar b \pm t_{.975,\, \nu} \sqrt{s_a^2/n_a + s_b^2/n_b}

    ``sd`` is :math:`\sqrt{s_a^2 + s_b^2}`, the spread of the difference of one run of each group.

    Args:
        a: values, any sequence of numbers; NaN in, NaN out. Infinite values of both signs are NaN
            too.
        b: values of the baseline.

    Returns:
        The difference. ``n`` is the number of runs of the smaller group.

    Example:
        >>> found = welch_difference([0.92, 0.95, 0.93], [0.90, 0.91, 0.90, 0.92])
        >>> found.n, round(found.mean, 4), round(found.p, 3), found.paired
        (3, 0.0258, 0.078, False)

    Reference:
        B. L. Welch, "The generalization of 'Student's' problem when several different population
        variances are involved", 1947.
    """
    a, b = list(map(float, a)), list(map(float, b))
    n = min(len(a), len(b))
    mean, (sd_a, sd_b) = mean_of(a) - mean_of(b), (sd_of(a), sd_of(b))
    largest = max(map(abs, (*a, *b)), default=0.0)
    sd, freedom, error = math.hypot(sd_a, sd_b), math.nan, math.nan
    if sd > _ROUNDING * largest:
        # Relative to `sd`, squares neither overflow nor vanish.
        var_a, var_b = (sd_a / sd) ** 2 / len(a), (sd_b / sd) ** 2 / len(b)
        error = sd * math.sqrt(var_a + var_b)
        parts = var_a**2 / (len(a) - 1) + var_b**2 / (len(b) - 1)
        freedom = (var_a + var_b) ** 2 / parts
    return Difference(n, mean, sd, *_interval(mean, error, freedom, n), paired=False)


def holm(p: Sequence[float]) -> list[float]:
    r"""Holm's correction of p values for the number of comparisons.

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1) \, p_{(j)})

    If each comparison with :math:`\tilde p \le \alpha` is called a difference, the probability of
    one or more false calls is at most :math:`\alpha`.

    Args:
        p: p values, any sequence of numbers; NaN stays NaN and does not count as a comparison.

    Returns:
        The corrected values, in the same order.

    Raises:
        ValueError: if a value is outside 0 to 1.

    Example:
        >>> [round(x, 3) for x in holm([0.04, 0.01, 0.03])]
        [0.06, 0.03, 0.06]

    Reference:
        S. Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    p = list(map(float, p))
    known = sorted((i for i, x in enumerate(p) if not math.isnan(x)), key=lambda i: p[i])
    check_range(0, 1, p=[p[i] for i in known])
    corrected, largest = [math.nan] * len(p), 0.0
    for rank, index in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p[index]))
        corrected[index] = largest
    return corrected


def detectable_difference(sd: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    r"""The smallest true difference that a paired t test of n pairs detects with a given power.

    .. math::
        \delta = \lambda s_d / \sqrt n, \quad
        P(|T_{n-1}(\lambda)| > t_{1-\alpha/2,\, n-1}) = \text{power}

    :math:`T_{n-1}(\lambda)` is the noncentral t distribution. A true difference below
    :math:`\delta` is missed more often than 1 - power. ``sd`` is itself an estimate: with 3 pairs
    its 95 % interval reaches from half of it to six times of it.

    Args:
        sd: standard deviation of the paired differences.
        n: number of pairs.
        power: probability of detection, from ``alpha`` to 1, both excluded.
        alpha: level of the two-sided test, from 0 to 1, both excluded.

    Returns:
        The difference, in the unit of ``sd``; NaN if ``sd`` is NaN or n < 2.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> round(detectable_difference(0.02, 3), 4), round(detectable_difference(0.02, 10), 4)
        (0.0653, 0.0199)

    Reference:
        J. Cohen, "Statistical power analysis for the behavioral sciences", 1988, chapter 2.
    """
    check_range(0, 1, above=0, below=1, alpha=alpha)
    check_range(alpha, 1, above=alpha, below=1, power=power)
    check_range(0, n=n)
    if math.isnan(sd) or n < 2:
        return math.nan
    check_range(0, sd=sd)
    return sd * _noncentrality(n - 1, power, alpha) / math.sqrt(n)


@cache
def _noncentrality(freedom: int, power: float, alpha: float) -> float:
    """The noncentrality at which a two-sided t test has a power, by bisection."""
    from scipy.special import gammaincinv, ndtr, stdtrit  # slow to load

    # T = (Z + shift) / S, where S^2 is chi-squared over its degrees of freedom. The probability
    # given S is averaged over quantiles of S: scipy's `nctdtr` is NaN in far tails.
    quantiles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    spread = np.sqrt(gammaincinv(freedom / 2, quantiles) * 2 / freedom)
    limit = float(stdtrit(freedom, 1 - alpha / 2)) * spread

    def power_at(shift: float) -> float:
        return float((ndtr(shift - limit) + ndtr(-shift - limit)).mean())

    low, high = 0.0, 1.0
    while power_at(high) < power:
        low, high = high, 2 * high
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if power_at(middle) < power else (low, middle)
    return high


def _interval(mean: float, error: float, freedom: float, n: int) -> tuple[float, float, float]:
    """The ends of the interval, and p; NaN for fewer than 3."""
    if n < FEWEST or not math.isfinite(mean) or not 0 < error < math.inf:
        return math.nan, math.nan, math.nan
    from scipy.special import stdtr, stdtrit  # slow to load

    reach = float(stdtrit(freedom, (1 + _CONFIDENCE) / 2)) * error
    p = 2 * float(stdtr(freedom, -abs(mean / error)))
    return mean - reach, mean + reach, p


def mean_of(values: Sequence[float]) -> float:
    """The mean; NaN of no values, of NaN, and of infinite values of both signs."""
    undefined = [x for x in values if not math.isfinite(x)]
    if undefined or not values:
        return sum(undefined) if undefined else math.nan
    try:
        return fmean(values)
    except OverflowError:  # the sum is beyond float64, the mean is not
        return math.ldexp(fmean(math.ldexp(x, -_BITS) for x in values), _BITS)


def sd_of(values: Sequence[float]) -> float:
    """The sample standard deviation; NaN where undefined, or beyond float64."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return math.nan
    mean = mean_of(values)
    sd = math.hypot(*(x - mean for x in values)) / math.sqrt(len(values) - 1)
    return sd if math.isfinite(sd) else math.nan
