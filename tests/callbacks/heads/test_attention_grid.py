import math

import numpy as np
import pytest
import torch

from lit_credit.callbacks.heads import attention_grid
from tests.support import drawn


def test_one_image_a_head_with_queries_down_and_keys_across():
    one = torch.rand(2, 3, 5).softmax(-1)
    other = torch.rand(1, 4, 4).softmax(-1)
    other[0, 0, 1:] = math.nan
    figure = drawn(attention_grid({"a": one, "b": other}, title="Maps"))
    *maps, bar = figure.axes
    grid = np.array(maps).reshape(2, 2)
    for index in range(2):
        (image,) = grid[0, index].images
        np.testing.assert_allclose(image.get_array(), np.log2(5 * one[index].numpy()), atol=1e-6)
    assert grid[1, 0].images[0].get_array().mask.tolist()[0] == [False, True, True, True]
    assert not grid[1, 1].images
    assert [ax.get_ylabel() for ax in grid[:, 0]] == ["a\nquery", "b\nquery"]
    assert grid[1, 0].get_xlabel() == "key"
    assert grid[0, 0].get_ylim()[0] > grid[0, 0].get_ylim()[1]
    keys = float((-one[1] * one[1].log()).sum(-1).exp().mean())
    assert grid[0, 1].get_title() == f"H01  {keys:.1f} keys"
    assert bar.get_xlabel() == "attention over uniform attention"


def color(image, row, column):
    return image.cmap(image.norm(image.get_array()[row, column]))[:3]


def test_uniform_attention_is_white_whatever_the_number_of_keys():
    causal = torch.ones(4, 4).tril()
    uniform = (causal / causal.sum(-1, keepdim=True)).masked_fill(causal == 0, math.nan)
    sharp = (torch.eye(4) * 0.91 + causal * 0.03).masked_fill(causal == 0, math.nan)
    sharp = sharp / sharp.nansum(-1, keepdim=True)
    figure = drawn(attention_grid({"a": torch.stack([uniform, sharp])}, title=""))
    flat, peaked, bar = (ax.images[0] if ax.images else ax for ax in figure.axes)
    assert [color(flat, i, 0) for i in range(4)] == [pytest.approx((1, 1, 1), abs=0.01)] * 4
    red, _, blue = color(peaked, 3, 3)
    assert blue > red + 0.2
    red, _, blue = color(peaked, 3, 0)
    assert red > blue + 0.1
    assert flat.get_clim() == peaked.get_clim() == (-5, 5)  # one scale for all heads
    names = [label.get_text() for label in bar.get_xticklabels()]
    assert names[len(names) // 2] == "uniform"
    assert names[0] == "÷32"
    assert figure.axes[0].get_title() == "H00  2.5 keys"


def test_long_names_and_titles_stay_in_their_places():
    names = [f"model.{kind}.layers.0.self_attn" for kind in ("encoder", "decoder")]
    names[1] = names[1].replace("self", "multihead")
    title = "Attention of the probe's first sample, step 100000"
    figure = drawn(attention_grid({name: torch.rand(2, 3, 3) for name in names}, title=title))
    one, other = (figure.axes[place].yaxis.label for place in (0, 2))
    assert one.get_text() == "encoder.layers.\n0.self_attn\nquery"
    above, below = (label.get_window_extent() for label in (one, other))
    assert below.y1 < above.y0
    around = figure.get_suptitle(), figure._suptitle.get_window_extent()
    assert around[0].replace("\n", " ") == title
    assert around[1].x0 >= 0
    assert around[1].x1 <= figure.bbox.width


def test_degenerate():
    drawn(attention_grid({}, title=""))
    drawn(attention_grid({"a": torch.full((1, 2, 2), math.nan)}, title=""))
    drawn(attention_grid({"a": torch.zeros(1, 1, 1)}, title=""))
    figure = attention_grid({str(i): torch.ones(40, 2, 2) for i in range(3)}, title="")
    assert max(figure.get_size_inches()) <= 40
