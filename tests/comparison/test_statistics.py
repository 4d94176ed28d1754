"""Statistics against scipy.stats and against simulation."""

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import nct, t, ttest_ind, ttest_rel

from lit_credit.comparison import (
    detectable_difference,
    holm,
    paired_difference,
    welch_difference,
)


def draw(n, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal(n)  # what a seed does to both groups
    a, b = shared + shift + 0.1 * rng.standard_normal((2, n))
    return dict(enumerate(a.tolist())), dict(enumerate((b - shift).tolist()))


@pytest.mark.parametrize("n", [3, 5, 30])
@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_paired_against_scipy(n, shift):
    a, b = draw(n, shift)
    found = paired_difference(a, b)
    expected = ttest_rel(list(a.values()), list(b.values()))
    low, high = expected.confidence_interval(0.95)
    differences = np.subtract(list(a.values()), list(b.values()))
    assert (found.n, found.paired) == (n, True)
    assert found.mean == pytest.approx(differences.mean())
    assert found.sd == pytest.approx(differences.std(ddof=1))
    assert (found.low, found.high, found.p) == pytest.approx((low, high, expected.pvalue))


def test_pairs_are_found_by_seed_in_any_order():
    a, b = draw(5, 0.2)
    mixed = {seed: b[seed] for seed in (3, 0, 4, 2, 1)} | {17: 99.0}
    assert paired_difference(a, mixed) == paired_difference(a, b)
    assert paired_difference(a | {-1: 5.0}, b) == paired_difference(a, b)


def test_welch_against_scipy():
    a, b = (list(group.values()) for group in draw(6, 0.2))
    found = welch_difference(a, b[:4])
    expected = ttest_ind(a, b[:4], equal_var=False)
    low, high = expected.confidence_interval(0.95)
    assert (found.n, found.paired) == (4, False)
    assert (found.low, found.high, found.p) == pytest.approx((low, high, expected.pvalue))
    assert found.sd == pytest.approx(math.hypot(np.std(a, ddof=1), np.std(b[:4], ddof=1)))


def test_infinite_values_on_both_sides_are_undefined():
    a, b = {1: math.inf, 2: 0.4, 3: 0.4}, {1: 0.3, 2: math.inf, 3: 0.3}
    for found in (paired_difference(a, b), welch_difference([*a.values()], [*b.values()])):
        assert found.n == 3
        assert all(map(math.isnan, (found.mean, found.sd, found.low, found.high, found.p)))


def test_infinite_values_of_one_sign_have_an_infinite_difference():
    a, b = {1: math.inf, 2: 0.4, 3: 0.4}, {1: 0.3, 2: 0.4, 3: 0.3}
    for found in (paired_difference(a, b), welch_difference([*a.values()], [*b.values()])):
        assert found.mean == math.inf
        assert all(map(math.isnan, (found.sd, found.low, found.high, found.p)))
    assert paired_difference(b, a).mean == -math.inf
    assert math.isnan(welch_difference([math.inf, -math.inf], [0.0, 1.0]).mean)
    assert math.isnan(welch_difference([math.inf, math.nan], [0.0, 1.0]).mean)


@pytest.mark.parametrize("scale", [2.0**1020, 2.0**600, 2.0**-600, 2.0**-1000])
def test_the_unit_changes_the_scale_alone(scale):
    a, b = {1: 1.5, 2: 2.5, 3: 2.0, 4: 3.0}, {1: 0.5, 2: 0.75, 3: 0.25, 4: 1.5}
    large = ({s: x * scale for s, x in side.items()} for side in (a, b))
    sides = ([x * factor for x in side.values()] for factor in (1, scale) for side in (a, b))
    for one, other in (
        (paired_difference(a, b), paired_difference(*large)),
        (welch_difference(next(sides), next(sides)), welch_difference(next(sides), next(sides))),
    ):
        assert other.p == pytest.approx(one.p)
        for name in ("mean", "sd", "low", "high"):
            assert vars(other)[name] == pytest.approx(vars(one)[name] * scale), name


def test_sums_beyond_float64_have_a_mean():
    found = welch_difference([1.5e308, 1.6e308, 1.7e308], [0.1, 0.2, 0.3])
    assert found.mean == pytest.approx(1.6e308)
    assert found.sd == pytest.approx(1e307)
    assert paired_difference({1: 1.5e308, 2: 1.7e308}, {1: 0.0, 2: 0.0}).mean == 1.6e308
    beyond = paired_difference({1: 1.5e308, 2: 0.0, 3: 0.0}, {1: -1.5e308, 2: 0.0, 3: 0.0})
    assert beyond.mean == math.inf
    assert math.isnan(beyond.sd)


@pytest.mark.parametrize("kind", [tuple, np.array, lambda x: np.array(x, np.float32)])
def test_any_sequence_of_numbers_will_do(kind):
    a, b, p = [0.5, 0.75, 0.625], [0.25, 0.5, 0.125, 0.25], [0.5, 0.125, math.nan]
    assert welch_difference(kind(a), kind(b)) == welch_difference(a, b)
    assert str(holm(kind(p))) == str(holm(p)) == "[0.5, 0.25, nan]"
    pairs = [dict(enumerate(kind(side))) for side in (a, b)]
    found = paired_difference(*pairs)
    assert found == paired_difference(dict(enumerate(a)), dict(enumerate(b)))
    assert {type(x) for x in vars(found).values()} == {int, float, bool}
    assert math.isnan(welch_difference(kind([]), kind(b)).mean)


def test_few_pairs_have_no_interval():
    nothing = paired_difference({1: 0.5}, {2: 0.5})
    assert nothing.n == 0
    assert math.isnan(nothing.mean)
    one = paired_difference({1: 0.75}, {1: 0.5})
    assert (one.n, one.mean) == (1, 0.25)
    assert math.isnan(one.sd)
    two = paired_difference({1: 0.75, 2: 0.5}, {1: 0.5, 2: 0.5})
    assert (two.n, two.mean) == (2, 0.125)
    assert two.sd == pytest.approx(0.25 / math.sqrt(2))
    for found in (nothing, one, two, welch_difference([1, 2], [3, 4, 5]), welch_difference([], [])):
        assert all(map(math.isnan, (found.low, found.high, found.p)))


def test_equal_differences_have_no_known_spread():
    b = {1: 0.1, 2: 0.2, 3: 0.7}
    found = paired_difference({seed: x + 0.1 for seed, x in b.items()}, b)
    assert found.mean == pytest.approx(0.1)
    assert all(map(math.isnan, (found.low, found.high, found.p)))
    assert math.isnan(paired_difference(b, b).p)
    assert math.isnan(welch_difference([1, 1, 1], [2, 2, 2]).p)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_undefined_in_undefined_out(bad):
    a, b = draw(4)
    for found in (
        paired_difference(a | {2: bad}, b),
        welch_difference([bad, 1, 2], [1, 2, 3]),
        paired_difference(a | {2: bad}, b | {2: bad}),
    ):
        assert not math.isfinite(found.mean)
        assert all(map(math.isnan, (found.sd, found.low, found.high, found.p)))


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04, times 4 3 2 1, made to rise.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    corrected = holm([math.nan, 0.02, 0.04])
    assert math.isnan(corrected[0])
    assert corrected[1:] == pytest.approx([0.04, 0.04])


def test_holm_keeps_the_familywise_error():
    """Of 2000 families of six comparisons without a difference, 5 % have a false one."""
    rng = np.random.default_rng(0)
    false, uncorrected = 0, 0
    for _ in range(2000):
        groups = [dict(enumerate(rng.standard_normal(5))) for _ in range(6)]
        base = dict(enumerate(np.zeros(5)))
        p = [paired_difference(group, base).p for group in groups]
        false += min(holm(p)) <= 0.05
        uncorrected += min(p) <= 0.05
    assert 0.035 < false / 2000 < 0.065
    assert uncorrected / 2000 > 0.2


@pytest.mark.parametrize("p", [-0.1, 1.1, math.inf])
def test_what_is_no_probability(p):
    with pytest.raises(ValueError, match=r"`p\[0\]` is .*, expected a number from 0 to 1"):
        holm([p])


@pytest.mark.parametrize("n", [2, 3, 5, 20, 200])
@pytest.mark.parametrize(("power", "alpha"), [(0.8, 0.05), (0.5, 0.01), (0.99, 0.2)])
def test_detectable_difference_against_the_noncentral_t(n, power, alpha):
    delta = detectable_difference(2.0, n, power, alpha)
    limit = t.ppf(1 - alpha / 2, n - 1)
    shift = delta * math.sqrt(n) / 2.0
    attained = nct.sf(limit, n - 1, shift)  # the other tail, of less than 1e-4, may be NaN
    assert shift > 0
    assert attained == pytest.approx(power, abs=2e-4)


def test_detectable_difference_by_simulation():
    """A true difference of that size is detected in 80 % of 4000 experiments."""
    rng = np.random.default_rng(1)
    for n in (3, 8):
        delta = detectable_difference(0.5, n)
        base = dict(enumerate(np.zeros(n)))
        draws = delta + 0.5 * rng.standard_normal((4000, n))
        found = [paired_difference(dict(enumerate(row)), base).p <= 0.05 for row in draws]
        assert np.mean(found) == pytest.approx(0.8, abs=0.02)


def test_detectable_difference_where_it_is_undefined():
    assert math.isnan(detectable_difference(0.1, 1))
    assert math.isnan(detectable_difference(math.nan, 5))
    assert detectable_difference(0.0, 5) == 0.0


@pytest.mark.parametrize(
    "wrong",
    [{"sd": -1.0}, {"sd": math.inf}, {"n": -1}, {"power": 0.05}, {"power": 1.0}, {"alpha": 0.0}],
)
def test_detectable_difference_refuses(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` is"):
        detectable_difference(**({"sd": 0.1, "n": 5} | wrong))


def test_statistics_load_neither_torch_nor_scipy_stats():
    code = (
        "import sys; from lit_credit.comparison import holm, paired_difference\n"
        "paired_difference({1: 1, 2: 2, 3: 4}, {1: 0, 2: 0, 3: 0})\n"
        "print([n for n in ('torch', 'lightning', 'matplotlib', 'scipy.stats') "
        "if n in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
