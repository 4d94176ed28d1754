"""What the eye sees in curves of a run: the ill one in the shaded area, the healthy one not."""

import math

import numpy as np
import pytest

from lit_credit.callbacks import (
    CreditAlignment,
    ReferenceValidity,
    ResidualNorms,
    ScaleStability,
    SubspaceDistance,
    WeightAlignment,
)
from tests.support import drawn


def rows(*values):
    return [{"step": 9 * i, "epoch": i, "name": "", "values": v} for i, v in enumerate(values)]


def layers(prefix, *numbers):
    return {f"{prefix}/L{i:02d}": number for i, number in enumerate(numbers)}


def figure_of(kind, found, **options):
    callback = kind(**options)
    return drawn(callback.draw(found, callback.section)).axes[0]


def texts(ax):
    return {text.get_text() for text in ax.texts}


def is_shaded(ax, y):
    """Whether a value lies in a shaded area."""
    boxes = [patch.get_extents().transformed(ax.transData.inverted()) for patch in ax.patches]
    return any(box.y0 <= y <= box.y1 for box in boxes)


def test_a_valid_reference_is_told_from_an_invalid_one():
    tag = "reference/cosine"
    found = rows(layers(tag, 1.0, 1 - 1e-13, math.nan), layers(tag, 1 - 1e-7, 0.9, math.nan))
    ax = figure_of(ReferenceValidity, found)
    assert ax.get_yscale() == "log"
    equal, ill, undefined = (line.get_ydata() for line in ax.lines[:3])
    np.testing.assert_allclose(equal, [1e-16, 1e-7], rtol=1e-3)
    np.testing.assert_allclose(ill, [1e-13, 0.1], rtol=1e-3)
    assert np.isnan(undefined).all()
    assert is_shaded(ax, 0.1)
    assert not is_shaded(ax, 0.0099)
    assert {"limit: cosine 0.99", "rounded to float32", "rounded to bfloat16"} <= texts(ax)
    low, high = ax.get_ylim()
    assert low < 1e-16 < 1 < high
    found[-1]["values"]["reference/share_below"] = 0.25
    assert "0.25 of its operations are below float64" in figure_of(
        ReferenceValidity, found
    ).get_title(loc="left")


@pytest.mark.parametrize(("kind", "bits"), [(np.float32, 24), (np.float16, 11)])
def test_rounding_turns_a_vector_by_as_much_as_its_level_says(kind, bits):
    """The levels are u^2 / 6, with u = 2^-bits: float16 stands for bfloat16, of other bits."""
    v = np.random.default_rng(0).normal(size=100_000)
    w = v.astype(kind).astype(float)
    turned = 1 - v @ w / np.linalg.norm(v) / np.linalg.norm(w)
    assert 0.3 < turned / (2.0 ** (-2 * bits) / 6) < 3


def test_a_stream_that_explodes_is_in_the_shaded_area_and_a_steady_one_is_not():
    healthy = rows(layers("residual/norm", 9.0, 9.4), layers("residual/norm", 7.0, 20.0))
    ill = rows(layers("residual/norm", 9.0, 9.4), layers("residual/norm", 100.0, 1e5))
    for found, last in ((healthy, 20.0), (ill, 1e5)):
        ax = figure_of(ResidualNorms, found)
        low, high = ax.get_ylim()
        assert low < 50 * 9.4 < high
        assert is_shaded(ax, last) == (last > 50 * 9.4)
    undefined = rows({"residual/norm/L00": math.nan})
    assert texts(figure_of(ResidualNorms, undefined)) == {"n/a"}


def test_growth_stands_against_the_limit_and_the_title_tells_the_flags():
    def row(growth, **flags):
        names = ("scale_unstable", "depth_unused", "reference_invalid")
        own = {f"stability/{name}": flags.get(name, 0.0) for name in names}
        return {"stability/growth": growth, **own}

    ax = figure_of(ScaleStability, rows(row(1.0), row(9.0, scale_unstable=1.0)), growth_limit=8.0)
    assert is_shaded(ax, 9.0)
    assert not is_shaded(ax, 7.9)
    assert "scale raised, depth clear, reference clear" in ax.get_title(loc="left")
    ax = figure_of(ScaleStability, rows(row(1.0), row(1.1, depth_unused=math.nan)))
    assert ax.get_ylim()[1] > 50
    assert "scale clear, depth n/a, reference clear" in ax.get_title(loc="left")
    figure_of(ScaleStability, rows(row(1.0), row(2.0)), growth_limit=math.inf)


def test_noise_of_a_cosine_does_not_fill_the_panel():
    found = rows(layers("credit/cosine", 0.006, -0.004), layers("credit/cosine", -0.006, 0.002))
    callback = CreditAlignment()
    callback.has_credit, callback.names = True, ["net.a", "net.b"]
    ax = drawn(callback.draw(found, "credit")).axes[0]
    low, high = ax.get_ylim()
    assert low < 0 < 1 < high
    assert {"a", "b", "unrelated", "the gradient"} == texts(ax)


def test_angles_stand_between_equal_and_unrelated():
    ax = figure_of(WeightAlignment, rows({"weight/angle/a": 90.1}, {"weight/angle/a": 88.0}))
    low, high = ax.get_ylim()
    assert low <= 0
    assert high > 90.1
    assert texts(ax) == {"a", "unrelated"}


@pytest.mark.parametrize("random", [2.1, math.nan])
def test_the_distance_of_random_spans_is_a_level_and_not_a_curve(random):
    found = rows(
        *({"subspace/distance/head": d, "subspace/distance/random": random} for d in (2, 1))
    )
    ax = figure_of(SubspaceDistance, found)
    assert [list(line.get_ydata()) for line in ax.lines[:1]] == [[2, 1]]
    assert texts(ax) == ({"head"} if math.isnan(random) else {"head", "random"})
    assert len(ax.lines) == len(texts(ax))
    assert ax.get_ylim()[0] <= 0
