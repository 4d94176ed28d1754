"""The norms of the residual MLP."""

import pytest
import torch
from torch import nn

from lit_credit.models import ResidualMLP
from tests.support import seeded


@pytest.mark.parametrize(
    ("norm", "kind"), [("layer", nn.LayerNorm), ("batch", nn.BatchNorm1d), (None, nn.Identity)]
)
def test_a_norm_stands_before_each_block_and_the_head(norm, kind):
    net = ResidualMLP(8, 6, 3, depth=2, norm=norm)
    assert {type(part) for part in (net.blocks[0].norm, net.blocks[1].norm, net.out_ln)} == {kind}
    assert net(torch.randn(4, 8)).shape == (4, 3)


def test_the_weights_do_not_depend_on_the_norm():
    nets = [
        seeded(lambda n=norm: ResidualMLP(8, 6, 3, depth=2, norm=n)) for norm in ("layer", None)
    ]
    states = [net.state_dict() for net in nets]
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())
    assert not any("norm" in name or "out_ln" in name for name in states[1])


def test_without_a_norm_the_output_is_the_formula():
    net = seeded(lambda: ResidualMLP(8, 6, 3, depth=1, norm=None))
    x = torch.randn(4, 8)
    h = net.embed(x)
    h = h + net.blocks[0].w2(nn.functional.gelu(net.blocks[0].w1(h)))
    assert torch.equal(net(x), net.out_head(h))


def test_another_norm_is_refused():
    with pytest.raises(ValueError, match="`norm` is 'group'"):
        ResidualMLP(norm="group")
