import io
import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lit_credit.comparison import comparison_figure


def histories(scale, epochs=3, cosine=0.5):
    """Three points of the stream that double every epoch, two units."""

    def rows(make):
        return [{"step": e, "epoch": e, "name": "x", "values": make(e)} for e in range(epochs)]

    return {
        "residual_norms": rows(
            lambda e: {f"residual/norm/L{i:02}": scale * (i + 1) * 2.0**e for i in range(3)}
        ),
        "gradient_norms": rows(
            lambda e: {f"gradient/norm/L{i:02}": scale / (i + 1) / 2.0**e for i in range(3)}
        ),
        "credit_alignment": rows(lambda e: {"credit/cosine/L00": 0.0, "credit/cosine/L01": cosine}),
        "metrics": rows(lambda e: {"val/accuracy": 0.1 * e * scale}),
    }


def draw(figure):
    figure.savefig(io.BytesIO(), format="png", dpi=30)
    return figure.axes


def thick(ax):
    return [line for line in ax.lines if line.get_linewidth() > 2]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_mean_and_band_over_seeds():
    h, g, cosine, accuracy = draw(comparison_figure({"DFA": [histories(1.0), histories(4.0)]}))
    np.testing.assert_allclose(thick(h)[0].get_ydata(), 2 * 3 * 2.0 ** np.arange(3))
    np.testing.assert_allclose(thick(g)[0].get_ydata(), 2 / 3 / 2.0 ** np.arange(3))
    np.testing.assert_allclose(thick(cosine)[0].get_ydata(), [0.25] * 3)
    np.testing.assert_allclose(thick(accuracy)[0].get_ydata(), [0.0, 0.25, 0.5])
    band = h.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 3.0
    assert band[:, 1].max() == 48.0
    assert [ax.get_yscale() for ax in (h, g, cosine, accuracy)] == ["log", "log"] + ["linear"] * 2
    assert len(h.lines) == len(g.lines) == 3  # the last layer thick, two before it thin
    assert texts(h) == ["DFA  \u00d74.0"]
    assert texts(g) == ["DFA  ÷4.0"]
    assert texts(cosine) == ["DFA  0.25"]
    assert texts(accuracy) == ["DFA  0.50"]


def test_one_colour_a_rule_in_every_panel():
    runs = {label: [histories(1.0)] for label in ("BP", "FA", "DFA", "DFA (b)", "Mine", "Other")}
    axes = draw(comparison_figure(runs, "A title"))
    colors = [[line.get_color() for line in thick(ax)] for ax in axes]
    assert all(panel == colors[0] for panel in colors)
    assert len(set(colors[0])) == len(runs)


@pytest.mark.parametrize("groups", [9, 20, 40])
def test_of_many_groups_the_best_and_the_worst_are_in_colour(groups):
    runs = {f"R{i}": [histories(1.0 + i)] for i in range(groups)}
    figure = comparison_figure(runs, always=["R4"])
    best = [f"R{groups - 1 - i}" for i in range(3)]
    for ax in draw(figure):
        assert len(thick(ax)) == 7
        assert len({line.get_color() for line in thick(ax)}) == 7
        assert len(ax.lines) == groups
        assert {text.split()[0] for text in texts(ax)} == {"R0", "R1", "R2", "R4", *best}
    assert f"Grey: the other {groups - 7} of {groups} groups." in figure.get_supxlabel()


def test_all_labels_are_inside_the_picture():
    labels = [f"DFA lr={10**-i:g} feedback_scale=0.5 width=64" for i in range(40)]
    runs = {label: [histories(1.0 + i)] for i, label in enumerate(labels)}
    figure = comparison_figure(runs)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    width, height = figure.get_size_inches() * figure.dpi
    for ax in figure.axes:
        assert ax.get_window_extent().width > width / 5  # no panel has collapsed
        for text in ax.texts:
            box = text.get_window_extent(renderer)
            assert 0 <= box.x0 < box.x1 <= width
            assert 0 <= box.y0 < box.y1 <= height


def test_absent_from_a_panel_without_the_quantity():
    frozen = histories(1.0)
    del frozen["credit_alignment"]
    _, _, cosine, accuracy = draw(comparison_figure({"BP": [histories(1.0)], "Frozen": [frozen]}))
    assert [text.split()[0] for text in texts(cosine)] == ["BP"]
    assert [text.split()[0] for text in texts(accuracy)] == ["BP", "Frozen"]


@pytest.mark.parametrize(
    "runs",
    [
        {"BP": [{}]},
        {},
        {"BP": [{name: [] for name in histories(1.0)}]},
        {"BP": [histories(math.nan, cosine=math.nan)]},
    ],
)
def test_nothing_to_show_says_so(runs):
    for ax in draw(comparison_figure(runs)):
        assert texts(ax) == ["n/a"]


def test_undefined_is_a_gap_and_infinite_growth_is_said():
    run = histories(1.0)
    run["credit_alignment"][1]["values"]["credit/cosine/L00"] = math.nan
    run["residual_norms"][2]["values"]["residual/norm/L02"] = math.inf
    h, _, cosine, _ = draw(comparison_figure({"DFA": [run]}))
    assert np.isnan(thick(cosine)[0].get_ydata()).tolist() == [False, True, False]
    assert np.isnan(thick(h)[0].get_ydata()).tolist() == [False, False, True]
    assert texts(h) == ["DFA  \u00d7∞"]


def test_a_run_that_stopped_early_counts_as_far_as_it_goes():
    runs = {"DFA": [histories(1.0, epochs=3), histories(3.0, epochs=2)]}
    accuracy = draw(comparison_figure(runs))[3]
    np.testing.assert_allclose(thick(accuracy)[0].get_ydata(), [0.0, 0.2, 0.2])


def test_without_training_there_is_a_point():
    accuracy = draw(comparison_figure({"BP": [histories(1.0, epochs=1)]}))[3]
    assert thick(accuracy)[0].get_markersize() > 0
