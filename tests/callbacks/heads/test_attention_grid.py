import math

import numpy as np
import torch

from lit_credit.callbacks.heads import attention_grid
from tests.support import drawn


def test_one_image_a_head_with_queries_down_and_keys_across():
    one = torch.rand(2, 3, 5).softmax(-1)
    other = torch.rand(1, 4, 4).softmax(-1)
    other[0, 0, 1:] = math.nan
    figure = drawn(attention_grid({"a": one, "b": other}, title="Maps"))
    grid = np.array(figure.axes).reshape(2, 2)
    for index in range(2):
        (image,) = grid[0, index].images
        np.testing.assert_array_equal(image.get_array(), one[index].numpy())
        assert image.get_clim() == (0.0, float(one[index].max()))
    assert grid[1, 0].images[0].get_array().mask.tolist()[0] == [False, True, True, True]
    assert not grid[1, 1].images
    assert [ax.get_ylabel() for ax in grid[:, 0]] == ["a\nquery", "b\nquery"]
    assert grid[1, 0].get_xlabel() == "key"
    assert grid[0, 0].get_ylim()[0] > grid[0, 0].get_ylim()[1]
    assert grid[0, 1].get_title() == f"H01  max {one[1].max():.2f}"


def test_long_names_and_titles_stay_in_their_places():
    names = [f"model.transformer.{kind}.layers.0.multihead_attn" for kind in ("encoder", "decoder")]
    title = "Attention of the probe's first sample, step 100000"
    figure = drawn(attention_grid({name: torch.rand(2, 3, 3) for name in names}, title=title))
    one, other = (figure.axes[place].yaxis.label for place in (0, 2))
    assert one.get_text() == "encoder.layers.\n0.multihead_attn\nquery"
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
