"""Submodules that run several times in one forward pass."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lit_credit import diagnose
from lit_credit.callbacks import GradientNorms, LayerProbes, ResidualNorms, SignalRank
from lit_credit.inspect.capture import Point, capture


class Tied(nn.Module):
    """One layer that runs twice, and one that runs once."""

    def __init__(self):
        super().__init__()
        self.twice, self.once, self.act = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU()

    def forward(self, x):
        return self.once(self.act(self.twice(self.act(self.twice(x)))))


class Checkpointed(Tied):
    def forward(self, x):
        return self.once(checkpoint(self.twice, x, use_reentrant=False))


def data():
    return torch.randn(24, 4), torch.randint(3, (24,))


def loss(net, batch):
    return nn.functional.cross_entropy(net(batch[0]), batch[1])


def said(net, kind, caplog, units):
    caplog.clear()
    caplog.set_level("INFO")
    diagnose(net, kind(units=units, figure=False), data(), loss=loss)
    return [r.message for r in caplog.records if "several times" in r.message]


@pytest.mark.parametrize("kind", [ResidualNorms, GradientNorms, SignalRank, LayerProbes])
def test_one_line_names_the_submodule(kind, caplog):
    (line,) = said(Tied(), kind, caplog, ["twice", "once"])
    assert line.startswith(f"{kind.__name__}: twice ran several times")


def test_no_line_without_a_second_run(caplog):
    assert not said(Tied(), GradientNorms, caplog, ["once"])
    # The second run of a checkpointed block repeats the first one.
    assert not said(Checkpointed(), GradientNorms, caplog, ["twice", "once"])


def test_the_first_run_is_recorded_and_the_point_named():
    net, x = Tied(), torch.randn(2, 4)
    points = [Point("twice", "output"), Point("once", "input")]
    with capture(net, points) as found:
        net(x)
    assert found.repeated == {points[0]}
    torch.testing.assert_close(found[points[0]], net.twice(x))
