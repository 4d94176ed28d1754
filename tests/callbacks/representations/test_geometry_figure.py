"""cos² against its bounds, and the cosines of all pairs."""

import math

import numpy as np
import pytest
import torch

from lit_credit.callbacks.representations.geometry_figure import (
    Geometry,
    chained,
    geometry_figure,
)
from lit_credit.functional import cosine_matrix, mean_squared_cosine, welch_bound
from tests.support import drawn


def geometry(vectors):
    count, width = vectors.shape
    cos2 = mean_squared_cosine(vectors).item()
    welch = welch_bound(count, width) if count > 1 else math.nan
    return Geometry(cos2, welch, width, cosine_matrix(vectors), "vectors")


def pairs(count):
    """Opposite pairs along the axes: as spread out as possible is 2 d vectors in d dimensions."""
    return torch.cat([torch.eye(count), -torch.eye(count)])


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_the_measured_value_stands_against_its_bound_and_unrelated_vectors():
    crowded = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    shown = {"spread": geometry(pairs(5)), "crowded": geometry(crowded)}
    bounds, *maps, bar = drawn(geometry_figure(shown, title="")).axes
    assert texts(bounds) == ["0.11, the bound", "0.50, \u00d71.5 the bound"]
    places = {line.get_marker(): [] for line in bounds.lines}
    for line in bounds.lines:
        places[line.get_marker()].append(float(np.ravel(line.get_xdata())[0]))
    assert places["o"] == pytest.approx([1 / 9, 0.5])
    assert places["|"] == pytest.approx([1 / 9, 1 / 3])
    assert places["D"] == pytest.approx([1 / 5, 1 / 2])
    assert bounds.get_xlim() == (0, 1.04)  # noise does not fill the axis
    assert [label.get_text() for label in bounds.get_yticklabels()] == list(shown)
    assert {ax.images[0].get_clim() for ax in maps} == {(-1, 1)}  # one scale
    assert bar.get_ylabel() == "cosine"


def test_each_vector_stands_beside_its_nearest_also_an_opposite_one():
    cosines = cosine_matrix(pairs(5))
    order = chained(cosines)
    assert sorted(order) == list(range(10))
    assert all(abs(a - b) == 5 for a, b in zip(order[::2], order[1::2], strict=True))
    assert chained(torch.full((3, 3), math.nan)) == [0, 1, 2]
    assert chained(torch.empty(0, 0)) == []


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"one": geometry(torch.ones(1, 3))},
        {"nan": geometry(torch.full((4, 2), math.nan))},
        {"orthogonal": geometry(torch.eye(3))},
        {str(i): geometry(pairs(2)) for i in range(7)},
    ],
    ids=["none", "one", "nan", "orthogonal", "seven"],
)
def test_degenerate(found):
    figure = drawn(geometry_figure(found, title=""))
    if not found:
        assert texts(figure.axes[0]) == ["n/a"]
    assert max(figure.get_size_inches()) <= 40
