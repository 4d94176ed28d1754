"""Maps of symbols, and attribution."""

import math

import numpy as np
import pytest
import torch

from lit_credit.callbacks.heads import attribution_figure, symbol_maps
from tests.support import drawn


def texts(ax):
    return [text.get_text() for text in ax.texts]


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
