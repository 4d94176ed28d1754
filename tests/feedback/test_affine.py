"""Layers that are known by what they compute."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from lit_credit.feedback.affine import affine_form


class Raw(nn.Module):
    """A weight and a bias of its own, whatever the forward does with them."""

    def __init__(self, forward, shape=(4, 4), bias=True, buffers=0):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))
        self.register_parameter("bias", nn.Parameter(torch.zeros(4)) if bias else None)
        self.calls = 0
        self.register_buffer("seen", torch.zeros(()))
        self.does = forward

    def forward(self, x):
        self.calls += 1
        self.seen += 1
        return self.does(self, x)


def doubled_in_training(layer, x):
    return (1 + layer.training) * F.linear(x, layer.weight, layer.bias)


CASES = {
    "plain": (lambda m, x: F.linear(x, m.weight, m.bias), "plain"),
    "transposed": (lambda m, x: x @ m.weight + m.bias, "transposed"),
    "einsum": (lambda m, x: torch.einsum("...i,oi->...o", x, m.weight) + m.bias, "plain"),
    "no bias added": (lambda m, x: x @ m.weight, None),
    "bias twice": (lambda m, x: x @ m.weight + 2 * m.bias, None),
    "scaled": (lambda m, x: x @ m.weight / 2 + m.bias, None),
    "activated": (lambda m, x: (x @ m.weight + m.bias).relu(), None),
    "capped": (lambda m, x: (x @ m.weight + m.bias).clamp(-200, 200), None),
    "clipped weight": (lambda m, x: x @ m.weight.clamp(-2, 2) + m.bias, None),
    "quantized": (lambda m, x: x @ m.weight.round() + m.bias, None),
    "dropout": (lambda m, x: F.dropout(x @ m.weight + m.bias, 0.5, m.training), None),
    "training": (doubled_in_training, None),
    "tuple": (lambda m, x: (x @ m.weight + m.bias, None), None),
    "normed weight": (lambda m, x: F.linear(x, F.normalize(m.weight), m.bias), None),
    "residual": (lambda m, x: x + x @ m.weight + m.bias, None),
    "broken": (lambda m, x: x @ m.nothing, None),
}


@pytest.mark.parametrize("case", CASES)
def test_a_square_weight_is_told_by_numbers_and_the_layer_is_left_as_it_was(case):
    forward, form = CASES[case]
    layer = Raw(forward)
    layer.register_forward_hook(lambda *_: pytest.fail("no hook runs"))
    weight, state = layer.weight, torch.get_rng_state()
    assert affine_form(layer) == form
    assert layer.weight is weight
    assert (layer.calls, float(layer.seen), layer.training) == (0, 0.0, True)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("layer", "form"),
    [
        (Conv1D(4, 4), "transposed"),
        (Conv1D(5, 3).bfloat16(), "transposed"),
        (nn.Linear(3, 4), "plain"),
        (Raw(lambda m, x: x @ m.weight, bias=False), "transposed"),
        (Raw(lambda m, x: x @ m.weight, shape=(2, 4), bias=False), "transposed"),
        (Raw(lambda m, x: x @ m.weight, shape=(2, 2, 4), bias=False), None),
        (nn.Embedding(3, 4), None),
        (nn.LayerNorm((3, 4)), None),
        (nn.Bilinear(2, 3, 4), None),
        (nn.LazyLinear(3), None),
        (nn.Sequential(nn.Linear(3, 3)), None),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)), None),
    ],
)
def test_layers_of_others(layer, form):
    assert affine_form(layer) == form


def test_a_layer_with_more_parameters_is_not_one():
    layer = nn.Linear(3, 3)
    layer.lora_a = nn.Parameter(torch.zeros(1, 3))
    assert affine_form(layer) is None
