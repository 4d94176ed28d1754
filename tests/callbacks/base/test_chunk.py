"""Frozen parameters that take part in autograd for a while."""

from torch import nn

from lit_credit.callbacks.base.chunk import unfrozen
from tests.support import Interrupted


def test_unfrozen_brings_the_frozen_back():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].requires_grad_(False)
    try:
        with unfrozen(net):
            assert all(p.requires_grad for p in net.parameters())
            raise Interrupted
    except Interrupted:
        pass
    assert [p.requires_grad for p in net.parameters()] == [False, False, True, True]
