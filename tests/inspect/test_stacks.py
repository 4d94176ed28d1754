"""Which blocks of a net run one after the other is found by numbers."""

from functools import partial

import pytest
import torch
from torch import nn

from lit_credit.inspect.stacks import chained_stacks, repeated_blocks

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """Adds to its input."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, hidden, mask=None):
        return hidden + self.layer(hidden).relu()


class ByName(Block):
    """Takes its input by name, and returns a tuple."""

    def forward(self, mask=None, *, hidden):
        return super().forward(hidden), mask


def blocks(count, kind=Block):
    return [kind() for _ in range(count)]


def in_turn(parts, x):
    for part in parts:
        x = part(x)
    return x


class Net(nn.Module):
    """Submodules by name, and a function that runs them."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.run(self, x)


def layered(count, run=in_turn, kind=Block):
    return Net(lambda net, x: run(net.layers, x), layers=nn.ModuleList(blocks(count, kind)))


def by_name(parts, x):
    for part in parts:
        x, _ = part(hidden=x)
    return x


def halved(parts, x):
    for part in parts:
        x = part(x) / 2
    return x


def around(parts, x):
    for part in parts:
        x = x + part(x)
    return x


def at_once(parts, x):
    return sum(part(x) for part in parts)


def mixture():
    """Experts beside one another."""
    return Net(lambda net, x: at_once(net.experts, x), experts=nn.ModuleList(blocks(2)))


def trunk_and_heads():
    heads = nn.ModuleList([mixture(), mixture()])
    return Net(lambda net, x: at_once(net.heads, net.trunk(x)), trunk=TWO(), heads=heads)


STAGES = ["0.0", "0.1", "1.0", "1.1"]
TWO = partial(layered, 2)
ENCODER = partial(nn.TransformerEncoder, enable_nested_tensor=False)
LAYERS = ["layers.0", "layers.1", "layers.2"]


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (layered(3), [LAYERS]),
        (layered(3, by_name, ByName), [LAYERS]),
        (layered(3, lambda parts, x: in_turn(parts, x * torch.nan)), [LAYERS]),
        (torch.compile(layered(3)), [LAYERS]),
        (layered(3, lambda parts, x: in_turn(reversed(parts), x)), []),
        (layered(3, halved), []),
        (layered(3, around), []),
        (layered(3, at_once), []),
        (layered(1), []),
        (nn.Sequential(nn.Linear(4, 4), *blocks(2), nn.Linear(4, 4)), [["1", "2"]]),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 4)), []),
        (nn.Sequential(nn.Sequential(*blocks(2)), nn.Sequential(*blocks(2))), [STAGES]),
        (nn.Sequential(TWO(), nn.ReLU(), TWO()), 2),
        (layered(2, kind=mixture), [["layers.0", "layers.1"]]),
        (mixture(), []),
        (trunk_and_heads(), [["trunk.layers.0", "trunk.layers.1"]]),
        (Net(lambda net, x: at_once(net.towers, x), towers=nn.ModuleList([TWO(), TWO()])), 2),
        (ENCODER(nn.TransformerEncoderLayer(4, 1, 4), 3), [LAYERS]),
    ],
)
def test_the_stacks_whose_blocks_read_what_the_one_before_returns(net, expected):
    net.eval()
    with torch.compiler.set_stance("force_eager"):
        found = chained_stacks(net, partial(net, X), repeated_blocks(net))
    assert (len(found) if isinstance(expected, int) else found) == expected
