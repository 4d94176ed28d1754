"""Signed heat maps."""

import math

import numpy as np
import torch

from lit_credit.plotting import SignedMap, signed_heatmaps
from tests.support import drawn


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
