import io
import itertools
import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from lit_credit.plotting import Level, layer_curves


def rows(layers, epochs=4, value=lambda layer, epoch: 10.0 ** (layer + epoch)):
    return [
        {
            "step": 7 * e,
            "epoch": e,
            "name": "x",
            "values": {f"n/L{i:02}": value(i, e) for i in range(layers)},
        }
        for e in range(epochs)
    ]


def draw(figure: Figure) -> None:
    """Warnings, which fail a test, come when the figure is laid out."""
    figure.savefig(io.BytesIO(), format="png", dpi=30)


def labels(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_a_short_run_has_whole_epochs_only():
    figure = layer_curves(rows(3, epochs=3), "n/", ylabel="norm", title="Growth")
    draw(figure)
    assert all(tick == round(tick) for tick in figure.axes[0].get_xticks())


def test_one_curve_a_layer_with_epoch_zero():
    figure = layer_curves(rows(3), "n/", ylabel="norm", title="Growth")
    draw(figure)
    ax = figure.axes[0]
    assert ax.get_yscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epochs of training", "norm")
    assert labels(figure) == ["L00", "L01", "L02"]
    for layer, line in enumerate(ax.lines):
        np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2, 3])
        np.testing.assert_array_equal(line.get_ydata(), [10.0 ** (layer + e) for e in range(4)])
    assert len({line.get_color() for line in ax.lines}) == 3


def test_names():
    figure = layer_curves(rows(2), "n/", names=["embed", "head"], ylabel="", title="")
    assert labels(figure) == ["embed", "head"]
    with pytest.raises(ValueError, match=r"`names` has 1 entries, but 2 layers.*n/L00, n/L01"):
        layer_curves(rows(2), "n/", names=["embed"], ylabel="", title="")


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0])
def test_what_cannot_be_drawn_is_a_gap(log, bad):
    def value(layer, epoch):
        return bad if epoch == 1 else 1.0

    figure = layer_curves(rows(1, value=value), "n/", ylabel="", title="", log=log)
    draw(figure)
    y = figure.axes[0].lines[0].get_ydata()
    assert np.isnan(y[1]) == (log or not math.isfinite(bad))
    assert np.isfinite(y[[0, 2, 3]]).all()


@pytest.mark.parametrize("data", [[], rows(2, value=lambda *_: math.nan)])
def test_nothing_to_show_says_so(data):
    figure = layer_curves(data, "n/", names=["a", "b"], ylabel="", title="")
    draw(figure)
    assert labels(figure) == ["n/a"]


def test_rows_within_an_epoch_are_drawn_over_steps():
    data = [{**row, "epoch": 0} for row in rows(1)]
    ax = layer_curves(data, "n/", ylabel="", title="").axes[0]
    assert ax.get_xlabel() == "optimizer steps"
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [0, 7, 14, 21])


def test_many_layers_keep_the_ends_labelled():
    figure = layer_curves(rows(60, value=lambda i, e: 1.0 + i), "n/", ylabel="", title="")
    draw(figure)
    assert len(labels(figure)) == 14
    assert labels(figure)[0] == "L00"
    assert labels(figure)[-1] == "L59"


def test_one_row_is_visible():
    line = layer_curves(rows(1, epochs=1), "n/", ylabel="", title="").axes[0].lines[0]
    assert line.get_markersize() > 0


def test_a_short_logarithmic_axis_has_plain_ticks():
    figure = layer_curves(rows(1, value=lambda i, e: 1 + e), "n/", ylabel="", title="")
    draw(figure)
    ticks = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert {"1", "2"} <= set(ticks)


def share_of_axis(ax, low, high):
    """The part of the axis' height between two values."""
    to_axes = ax.transScale + ax.transLimits
    return to_axes.transform((0.0, high))[1] - to_axes.transform((0.0, low))[1]


@pytest.mark.parametrize(
    ("log", "options"),
    [(False, {}), (False, {"span": 1.0}), (False, {"reach": (0, 1)}), (True, {})],
)
def test_noise_is_not_magnified(log, options):
    data = rows(2, value=lambda layer, epoch: 1 - 1e-3 * (layer + epoch))
    figure = layer_curves(data, "n/", ylabel="", title="", log=log, **options)
    draw(figure)
    assert share_of_axis(figure.axes[0], 0.996, 1.0) < 0.05
    data = rows(2, value=lambda layer, epoch: 1 - 0.1 * (layer + epoch))
    figure = layer_curves(data, "n/", ylabel="cosine", title="Valid?", log=False, span=0.02)
    assert share_of_axis(figure.axes[0], 0.6, 1.0) > 0.9


@pytest.mark.parametrize("epochs", [1, 4])
def test_a_limit_is_in_sight_and_has_a_label_that_overlaps_no_other(epochs):
    data = rows(3, epochs, value=lambda layer, epoch: 2.0 + layer)
    levels = [Level(100.0, "limit", "above"), Level(math.nan, "unknown"), Level(2.0, "first")]
    figure = layer_curves(data, "n/", ylabel="", title="", levels=levels)
    FigureCanvasAgg(figure).draw()
    (ax,) = figure.axes
    assert ax.get_yscale() == "log"
    low, high = ax.get_ylim()
    assert low < 2.0 < 100.0 < high
    assert {"limit", "first"} <= set(labels(figure))
    assert "unknown" not in labels(figure)
    boxes = sorted((Text.get_window_extent(text) for text in ax.texts), key=lambda box: box.y0)
    assert all(one.y1 <= other.y0 + 1 for one, other in itertools.pairwise(boxes))
    assert ax.patches[0].get_extents().transformed(ax.transData.inverted()).y0 == pytest.approx(100)


def test_the_line_to_a_moved_label_ends_before_it():
    figure = layer_curves(rows(12, value=lambda *_: 1.0), "n/", ylabel="norm", title="Growth")
    draw(figure)
    for text in figure.axes[0].texts:
        line = text.arrow_patch.get_window_extent()
        assert line.x1 <= Text.get_window_extent(text).x0 + 1


@pytest.mark.parametrize(("values", "scale"), [((1.0, 4.0, 9.0), "linear"), ((1.0, 99.0), "log")])
def test_a_single_measurement_is_drawn_over_the_layers(values, scale):
    row = {f"a/L{index:02d}": value for index, value in enumerate(values)}
    rows = [{"step": 7, "epoch": 0, "name": "", "values": row}]
    (ax,) = layer_curves(rows, "a/", ylabel="norm", title="Growth").axes
    assert ax.get_yscale() == scale
    assert list(ax.lines[0].get_ydata()) == list(values)
    assert [label.get_text() for label in ax.get_xticklabels()] == [tag[2:] for tag in row]
    assert "layer" in ax.get_xlabel()
