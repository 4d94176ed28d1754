"""Noise does not fill an axis, and limits are in sight."""

import math

import pytest
from matplotlib.figure import Figure

from lit_credit.plotting._style import GREY
from lit_credit.plotting.ranges import Level, draw_levels, fit_range


def axes_with(values, log=False):
    ax = Figure().subplots()
    ax.set_yscale("log" if log else "linear")
    ax.plot(range(len(values)), values)
    return ax


def share_of_axis(ax, values):
    """The part of the axis' height that the values take."""
    to_axes = ax.transScale + ax.transLimits
    places = [to_axes.transform((0.0, value))[1] for value in values]
    return max(places) - min(places)


@pytest.mark.parametrize(
    ("values", "log", "most"),
    [
        ([0.975, 0.976, 0.974], False, 0.03),
        ([-0.974, -0.976], False, 0.03),
        ([1.0, 1 - 1e-12], False, 0.001),
        ([0.0, 0.0], False, 0.001),
        ([1e-7, 1.1e-7], True, 0.05),
        ([9.4, 20.0], True, 0.35),
    ],
)
def test_noise_does_not_fill_the_axis(values, log, most):
    ax = axes_with(values, log)
    low, high = fit_range(ax)
    assert low < min(values) <= max(values) < high
    assert share_of_axis(ax, values) <= most


@pytest.mark.parametrize("log", [False, True])
def test_what_differs_fills_the_axis(log):
    values = [1e-3, 1.0, 50.0]
    ax = axes_with(values, log)
    fit_range(ax)
    assert share_of_axis(ax, values) > 0.9


def test_a_cosine_about_zero_needs_a_span_or_a_reach():
    values = [-0.006, 0.006]
    for options in ({"span": 1.0}, {"reach": (0.0, 1.0)}):
        ax = axes_with(values)
        fit_range(ax, **options)
        assert share_of_axis(ax, values) < 0.02


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
@pytest.mark.parametrize("log", [False, True])
def test_without_data_the_axes_stay(values, log):
    ax = axes_with(values, log)
    before = ax.get_ylim()
    assert fit_range(ax) == before == ax.get_ylim()


def test_levels_are_lines_with_a_shaded_side_and_a_label():
    ax = axes_with([1.0, 20.0], log=True)
    fit_range(ax, reach=(1.0, 50.0))
    low, high = ax.get_ylim()
    levels = [Level(50.0, "limit", "above"), Level(2.0, "start", "below"), Level(1e9, "far")]
    labels = draw_levels(ax, [*levels, Level(math.nan, "unknown"), Level(3.0, "plain")])
    assert [(label.y, label.text) for label in labels] == [
        (50.0, "limit"),
        (2.0, "start"),
        (3.0, "plain"),
    ]
    assert {label.color for label in labels} == {GREY}
    above, below = ax.patches
    ends = [patch.get_extents().transformed(ax.transData.inverted()) for patch in (above, below)]
    assert [(box.y0, box.y1) for box in ends] == [
        pytest.approx((50.0, high)),
        pytest.approx((low, 2.0)),
    ]
    assert ax.get_ylim() == (low, high)
