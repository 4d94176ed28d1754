import io
import math

import numpy as np
import torch

from lit_credit.plotting import attention_grid


def drawn(figure):
    figure.savefig(io.BytesIO(), format="png", dpi=30)
    return figure


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


def test_degenerate():
    drawn(attention_grid({}, title=""))
    drawn(attention_grid({"a": torch.full((1, 2, 2), math.nan)}, title=""))
    drawn(attention_grid({"a": torch.zeros(1, 1, 1)}, title=""))
    figure = attention_grid({str(i): torch.ones(40, 2, 2) for i in range(3)}, title="")
    assert max(figure.get_size_inches()) <= 40
