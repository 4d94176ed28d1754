"""Signed heat maps, maps of symbols, attribution and divergence."""

import io
import math

import numpy as np
import pytest
import torch

from lit_credit.callbacks.distributions import divergence_figure
from lit_credit.callbacks.heads import attribution_figure, symbol_maps
from lit_credit.plotting import SignedMap, signed_heatmaps


def drawn(figure):
    figure.savefig(io.BytesIO(), format="png", dpi=30)
    return figure


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_signed_maps_are_white_at_zero_and_keep_what_is_undefined():
    values = torch.tensor([[0.5, -2.0, math.nan], [0.0, 1.0, 2.0]])
    maps = {
        "a": SignedMap(values, "column", "row", list("xyz"), ["one", "two"]),
        "nothing": SignedMap(torch.full((2, 2), math.nan)),
        "zero": SignedMap(torch.zeros(2, 2)),
    }
    figure = drawn(signed_heatmaps(maps, title="Maps"))
    one, none, zero = (ax for ax in figure.axes if ax.get_label() != "<colorbar>")
    assert one.images[0].get_clim() == (-2, 2)
    np.testing.assert_allclose(one.images[0].get_array().filled(math.nan), values)
    assert [label.get_text() for label in one.get_xticklabels()] == list("xyz")
    assert [label.get_text() for label in one.get_yticklabels()] == ["one", "two"]
    assert (one.get_xlabel(), one.get_ylabel()) == ("column", "row")
    assert texts(none) == ["n/a"]
    assert zero.images[0].get_clim() == (-1, 1)
    assert texts(drawn(signed_heatmaps({}, title="")).axes[0]) == ["n/a"]


def test_maps_of_symbols_share_their_colours():
    values = torch.tensor([[0.25, math.nan], [0.0, 0.5]])
    figure = drawn(symbol_maps(dict.fromkeys("abcde", values), title="", xlabel="x", ylabel="y"))
    panels = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title() for ax in panels] == list("abcde")
    assert {ax.images[0].get_clim() for ax in panels} == {(0, 1)}
    np.testing.assert_allclose(panels[4].images[0].get_array().filled(math.nan), values)
    figure = drawn(symbol_maps({}, title="", xlabel="x", ylabel="y"))
    assert [texts(ax) for ax in figure.axes] == [["n/a"], []]


def test_attribution_has_a_bar_in_line_with_every_row():
    margins = torch.tensor([[1.0, -1.0], [2.0, 1.0], [math.nan, math.nan]])
    accuracy = {"H00": 0.5, "group": 1.0, "rest": math.nan}
    figure = drawn(attribution_figure(margins, accuracy, title="Heads"))
    image, bars = figure.axes[:2]
    assert [label.get_text() for label in image.get_yticklabels()] == list(accuracy)
    assert texts(bars) == ["0.50", "1.00", "n/a"]
    places = [bar.get_y() + bar.get_height() / 2 for bar in bars.patches]
    assert places == pytest.approx(image.get_yticks())
    assert bars.get_ylim() == image.get_ylim()
    with pytest.raises(ValueError, match="`accuracy` has 3 parts, but `margins` 2 rows"):
        attribution_figure(margins[:2], accuracy, title="")


def rows(kl, bound=True):
    found = []
    for step, value in enumerate(kl):
        values = {"kl": value, "kl_uniform": 2.0, "accuracy": 0.5, "accuracy_max": 0.9}
        values |= {"memorized": 10 * step, "contexts": 100}
        values |= {"memorized_bound": 60} if bound else {}
        tagged = {f"divergence/{tag}": v for tag, v in values.items()}
        found.append({"step": 10 * step, "epoch": step, "name": "", "values": tagged})
    return found


def test_divergence_of_several_runs_with_its_levels():
    runs = {"BP": [rows([1.0, 0.01]), rows([1.0, 0.0001])], "FA": [rows([1.0, 0.1], bound=False)]}
    figure = drawn(divergence_figure(runs, title="Learning"))
    divergence, accuracy, memorized = figure.axes
    assert [float(y) for y in divergence.lines[0].get_ydata()] == pytest.approx([1.0, 0.001])
    assert divergence.get_yscale() == "log"
    assert {"BP 0.001", "FA 0.1", "log N - H 2"} == set(texts(divergence))
    assert "best there is 0.9" in texts(accuracy)
    assert {"all 100", "bound from below 60"} <= set(texts(memorized))


def test_large_counts_are_written_out():
    many = rows([1.0, 0.5])
    for row in many:
        row["values"] |= {"divergence/memorized": 1234.0, "divergence/contexts": 1600.0}
    shown = texts(drawn(divergence_figure({"BP": [many]})).axes[2])
    assert {"1,234", "all 1,600"} <= set(shown)


def test_a_level_that_runs_do_not_share_is_not_drawn():
    other = rows([1.0, 0.5])
    for row in other:
        row["values"]["divergence/kl_uniform"] = 3.0
    figure = drawn(divergence_figure({"a": [rows([1.0, 0.1])], "b": [other]}))
    assert not any("log N" in text for text in texts(figure.axes[0]))
    assert [texts(ax) for ax in drawn(divergence_figure({})).axes] == [["n/a"]] * 3
