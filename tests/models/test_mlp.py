"""The MLP's options, and the bits of its default."""

import pytest
import torch
from torch import nn

from lit_credit.models import MLP
from lit_credit.models.activations import make_activation
from tests.support import seeded


def test_the_default_has_the_names_the_draws_and_the_bits_of_plain_layers():
    net = seeded(lambda: MLP(6, [5, 4], 3))
    torch.manual_seed(0)
    first, second, head = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3)
    names = {"layers.0.0": first, "layers.1.0": second, "head": head}
    expected = {f"{n}.{k}": v for n, layer in names.items() for k, v in layer.state_dict().items()}
    found = seeded(lambda: MLP(6, [5, 4], 3)).state_dict()
    assert list(found) == list(expected)
    torch.manual_seed(0)
    net = MLP(6, [5, 4], 3)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in expected.items())
    x = torch.randn(2, 6)
    assert torch.equal(net(x), head(second(first(x).relu()).relu()))


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("sigmoid", nn.Sigmoid),
        ("leaky_relu", nn.LeakyReLU),
        ("LeakyReLU", nn.LeakyReLU),
        ("torch.nn.Softplus", nn.Softplus),
        ("torch.nn.modules.activation.SELU", nn.SELU),
        (nn.Hardtanh, nn.Hardtanh),
        (lambda: nn.ELU(0.5), nn.ELU),
    ],
)
def test_an_activation_has_many_spellings(given, kind):
    assert type(make_activation(given)) is kind
    layers = MLP(4, [3, 3], 2, activation=given).layers
    assert type(layers[0][-1]) is kind
    assert layers[0][-1] is not layers[1][-1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("reluu", r"`activation` is 'reluu'.*Did you mean 'relu'\? Choose from: celu, elu"),
        ("os.getcwd", r"`activation` is 'os.getcwd', expected the name"),
        ("mylab.ReLU", r"`activation` is 'mylab.ReLU'"),
        (3, r"`activation` is 3, expected the name"),
        (nn.ReLU(), r"`activation` is one ReLU, which all layers would share"),
        (nn.Threshold, r"cannot be called without arguments"),
        (dict, r"returns dict, expected an nn.Module"),
    ],
)
def test_what_is_not_an_activation_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        MLP(4, [3], 2, activation=given)


def test_a_unit_holds_weight_norm_activation_and_dropout_in_that_order():
    net = MLP(4, [3], 2, "tanh", dropout=0.5, norm="layer", bias=False)
    kinds = [type(part) for part in net.layers[0]]
    assert kinds == [nn.Linear, nn.LayerNorm, nn.Tanh, nn.Dropout]
    assert net.layers[0][0].bias is None
    assert net.head.bias is None


@pytest.mark.parametrize(
    ("init", "std", "bound"),
    [
        ("xavier_uniform", (2 / 1000) ** 0.5, (6 / 1000) ** 0.5),
        ("xavier_normal", (2 / 1000) ** 0.5, None),
        ("kaiming_uniform", (2 / 600) ** 0.5, (6 / 600) ** 0.5),
        ("kaiming_normal", (2 / 600) ** 0.5, None),
        ("normal", 0.3, None),
    ],
)
def test_named_weights_have_their_spread_and_zero_biases(init, std, bound):
    torch.manual_seed(0)
    net = MLP(600, [400], 200, init=init, init_std=0.3 if init == "normal" else None)
    weight = net.layers[0][0].weight
    assert abs(weight.std() / std - 1) < 0.01
    assert bound is None or 0.99 * bound < weight.abs().max() <= bound
    assert not net.layers[0][0].bias.any()
    assert not net.head.bias.any()
    assert net.head.weight.std() > 0


def test_orthogonal_weights_are_orthonormal():
    weight = MLP(6, [4], 2, init="orthogonal").layers[0][0].weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(4), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"init": "he"}, r"`init` is 'he', expected 'default', 'xavier_uniform'"),
        ({"init": "normal"}, r"`init_std` is None, and `init` is 'normal'"),
        ({"init_std": 0.1}, r"`init_std` is 0.1, and `init` is 'default'"),
        ({"norm": "group"}, r"`norm` is 'group', expected 'batch' or 'layer'"),
        ({"dropout": 1.0}, r"`dropout` is 1.0"),
    ],
)
def test_options_that_do_not_fit_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        MLP(4, [3], 2, **given)
