"""A dot per head: where it stands, and what one sees."""

import math

import numpy as np
import pytest
from matplotlib.text import Text

from lit_credit.callbacks import SoftmaxJacobian
from lit_credit.callbacks.heads.softmax_figure import softmax_figure
from tests.support import drawn

LAYERS = [f"model.blocks.{i}.attention" for i in range(2)]


def head(r_off=0.5, diagonal=0.8, straight=0.4, keys=6.0):
    return {
        "r_off": r_off,
        "cosine_diag": diagonal,
        "cosine_ste": straight,
        "effective_keys": keys,
    }


def heads(count=3, layers=LAYERS, **numbers):
    return {(label, f"H{i:02d}"): head(**numbers) for label in layers for i in range(count)}


def dots(ax):
    return [collection.get_offsets().data for collection in ax.collections]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_heads_stand_in_order_layer_by_layer_with_a_gap_between():
    found = heads()
    found[LAYERS[1], "H00"] = head(r_off=0.05, diagonal=0.99, straight=0.1, keys=40.0)
    figure = drawn(softmax_figure(found, title="Heads"))
    lateral, left, keys = figure.axes
    (energy,) = dots(lateral)
    np.testing.assert_allclose(energy[:, 0], [0, 1, 2, 4, 5, 6])
    np.testing.assert_allclose(energy[:, 1], [0.5, 0.5, 0.5, 0.05, 0.5, 0.5])
    diagonal, straight = dots(left)
    assert (diagonal[3, 1], straight[3, 1]) == (0.99, 0.1)
    assert dots(keys)[0][3, 1] == 40.0
    assert keys.get_yscale() == "log"
    numbers = [label.get_text() for label in keys.get_xticklabels()]
    assert numbers == ["0", "1", "2"] * 2
    names = [label.get_text().strip() for label in keys.get_xticklabels(minor=True)]
    assert names == ["blocks.0", "blocks.1"]


def test_the_question_is_answered_by_levels_that_are_always_in_sight():
    figure = drawn(softmax_figure(heads(r_off=0.5001, diagonal=0.801, keys=3.0), title=""))
    lateral, left, keys = figure.axes
    assert {"small", "as the whole"} <= set(texts(lateral))
    assert {"diagonal", "straight-through", "all of it", "unrelated"} <= set(texts(left))
    for ax in (lateral, left):
        low, high = ax.get_ylim()
        assert low < 0 < 1 < high  # noise does not fill the panel
    low, high = keys.get_ylim()
    assert low <= 1
    assert high >= 10


def test_a_head_without_numbers_says_so_and_labels_stay_in_the_picture():
    found = heads()
    found[LAYERS[0], "H01"] = head(*[math.nan] * 4)
    figure = drawn(softmax_figure(found, title=""))
    for ax in figure.axes:
        assert texts(ax).count("n/a") == 1
        boxes = [Text.get_window_extent(text) for text in ax.texts]
        assert all(0 <= box.x0 < box.x1 <= figure.bbox.width for box in boxes)


@pytest.mark.parametrize("found", [{}, heads(r_off=math.nan, diagonal=math.nan, keys=math.nan)])
def test_nothing_to_show_says_so(found):
    figure = drawn(softmax_figure(found, title=""))
    assert texts(figure.axes[0])[-1:] == ["n/a"]
    assert texts(figure.axes[2])[-1:] == ["n/a"]


@pytest.mark.slow
def test_many_layers_and_heads_stay_in_one_figure_of_the_page():
    layers = [f"h.{i}.attn" for i in range(48)]
    figure = drawn(softmax_figure(heads(25, layers), title=""))
    assert figure.get_figwidth() < 12
    names = [label.get_text().strip() for label in figure.axes[-1].get_xticklabels(minor=True)]
    assert 2 <= sum(map(bool, names)) <= 12
    assert not any(label.get_text() for label in figure.axes[-1].get_xticklabels())


def test_the_callback_draws_its_last_row():
    values = {f"jacobian/{quantity}/a/H00": number for quantity, number in head().items()}
    rows = [{"step": s, "epoch": 0, "name": "", "values": values} for s in (1, 7)]
    figure = SoftmaxJacobian().draw(rows, "jacobian")
    assert "step 7" in figure.get_suptitle()
    assert dots(figure.axes[0])[0].tolist() == [[0.0, 0.5]]
