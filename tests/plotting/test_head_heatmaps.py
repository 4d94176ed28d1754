import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from lit_credit.plotting import HeadPanel, SignedMap, head_heatmaps, signed_heatmaps
from tests.support import drawn

LAYERS = {"blocks.0.attention": [0.1, 1.2], "blocks.1.attention": [-0.4, math.nan]}


def test_layers_go_down_heads_across_and_every_number_stands_in_its_cell():
    figure = drawn(head_heatmaps({HeadPanel("r"): LAYERS}, title="Heads"))
    (ax,) = figure.axes
    texts = {text.get_position(): text.get_text() for text in ax.texts}
    assert texts == {(0, 0): "0.10", (1, 0): "1.20", (0, 1): "-0.40", (1, 1): "n/a"}
    np.testing.assert_allclose(ax.images[0].get_array().filled(math.nan), list(LAYERS.values()))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["blocks.0", "blocks.1"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first layer on top
    assert ax.get_xlabel() == "head"


def test_titles_end_before_the_next_panel():
    names = [f"model.transformer.decoder.layers.{i}.multihead_attn" for i in range(2)]
    title = "cosine of straight-through"
    panels = {HeadPanel(f"{title} {i}"): {name: [0.1, 0.2] for name in names} for i in range(2)}
    figure = drawn(head_heatmaps(panels, title=""))
    for ax in figure.axes:
        assert ax._left_title.get_window_extent().x1 <= ax.bbox.x1 + 0.15 * ax.bbox.width
    assert not any(label.get_text() for label in figure.axes[1].get_yticklabels())  # as on the left
    assert figure.axes[0].get_yticklabels()[0].get_text() == "layers.0"


def test_signed_columns_with_long_names_leave_room_for_the_matrix():
    columns = [f"encoder_layer_{i // 4}.self_attention/H0{i % 4}" for i in range(16)]
    rows = [str(i) for i in range(30)]
    panel = SignedMap(torch.rand(30, 16), columns=columns, rows=rows)
    figure = drawn(signed_heatmaps({"logits": panel}, title=""))
    labels = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(below.y1 < above.y0 for above, below in pairwise(labels))


@pytest.mark.parametrize(
    ("panel", "limits"),
    [
        (HeadPanel("r"), (0, 1.2)),
        (HeadPanel("r", at_least=2.0), (0, 2.0)),
        (HeadPanel("cosine", signed=True), (-1, 1)),
    ],
)
def test_colours_cover_the_range_of_the_quantity(panel, limits):
    figure = head_heatmaps({panel: LAYERS}, title="")
    assert figure.axes[0].images[0].get_clim() == limits


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([math.nan, math.nan], ["n/a", "n/a"]),
        ([math.inf, 1.0], ["inf", "1.00"]),
        ([0.0, 0.0], ["0.00", "0.00"]),
        ([1e9, 1.0], ["1e+09", "1.00"]),
    ],
)
def test_degenerate_values(values, texts):
    figure = drawn(head_heatmaps({HeadPanel("r"): {"a": values}}, title=""))
    assert [text.get_text() for text in figure.axes[0].texts] == texts


def test_layers_of_different_width_and_panels_without_any():
    maps = {HeadPanel("a"): {"x": [0.1], "y": [0.1, 0.2, 0.3]}, HeadPanel("b"): {}}
    figure = drawn(head_heatmaps(maps, title=""))
    assert len(figure.axes[0].texts) == 4
    assert [text.get_text() for text in figure.axes[1].texts] == ["n/a"]
    drawn(head_heatmaps({}, title=""))


def test_cells_have_room_for_their_numbers_or_none_are_written():
    many = {f"blocks.{i}": [0.5] * 12 for i in range(12)}
    figure = drawn(head_heatmaps({HeadPanel(c): many for c in "abcde"}, title=""))
    assert figure.get_figwidth() >= 12 * 0.62
    assert len(figure.axes[0].texts) == 144
    huge = {f"blocks.{i}": [0.5] * 100 for i in range(90)}
    figure = head_heatmaps({HeadPanel("a"): huge}, title="")
    assert max(figure.get_size_inches()) <= 40
    assert not figure.axes[0].texts
