"""Measurements that leave nothing behind."""

import random
from collections import deque

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from lit_credit.utils.guard import guarded, isolated
from lit_credit.utils.random_state import preserved_rng


def draw():
    return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002


def seed():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("fails", [False, True])
def test_modes_random_states_and_autograd_come_back(fails):
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout().eval()))
    modes = [child.training for child in net.modules()]
    seed()
    expected = draw()
    seed()
    with torch.inference_mode():
        try:
            with guarded(net):
                assert not any(child.training for child in net.modules())
                assert torch.is_grad_enabled()
                assert not torch.is_inference_mode_enabled()
                (net(torch.ones(2, 2)) * torch.ones((), requires_grad=True)).sum().backward()
                draw()
                if fails:
                    raise Interrupted
        except Interrupted:
            pass
        assert torch.is_inference_mode_enabled()
    assert [child.training for child in net.modules()] == modes
    assert draw() == expected


def test_modes_may_stay():
    net = nn.Dropout()
    with torch.no_grad(), guarded(net, train=True):
        assert net.training
        assert torch.is_grad_enabled()
    assert net.training


class Merging(nn.Linear):
    """As some LoRA layers: a change of mode changes the weight."""

    def train(self, mode=True):
        if mode != self.training:
            self.weight.data += 1.0
        return super().train(mode)


def test_a_change_of_mode_does_nothing_else():
    net = nn.Sequential(Merging(2, 2))
    before = net[0].weight.clone()
    with guarded(net):
        assert not net[0].training
    assert net[0].training
    assert torch.equal(net[0].weight, before)


def test_preserved_rng_gives_the_same_numbers_again():
    seed()
    with preserved_rng():
        first = draw()
    assert draw() == first


class Busy(nn.Module):
    """Changes all that a step may change."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.metric = MulticlassAccuracy(2)
        self.norm = nn.BatchNorm1d(2)
        self.outputs, self.recent = [1], deque([1], maxlen=3)
        self.table, self.names = {"a": 1}, {"a"}
        self.count, self.last = 0, torch.zeros(2)
        self.nested = {"train": [torch.zeros(2)], "again": self.outputs}
        self.nested["itself"] = self.nested
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("unset", None)

    def forward(self, x):
        self.metric(self.norm(x), torch.zeros(len(x), dtype=torch.long))
        self.outputs.append(2)
        self.recent.append(2)
        self.table["b"] = 2
        self.names.add("b")
        self.count += 1
        self.last += 1
        self.nested["train"][0] += 1
        self.nested["itself"]["train"].append(x)
        assert self.nested["again"] is self.outputs
        self.new = 1
        self.unset = torch.ones(())
        # A buffer that the backward pass needs, and that changes.
        self.steps += 1
        return (self.weight * self.steps * x).sum()


@pytest.mark.parametrize("around", [guarded, isolated])
@pytest.mark.parametrize("fails", [False, True])
def test_attributes_and_buffers_come_back(fails, around):
    module, x = Busy(), torch.ones(3, 2)
    identities = {name: id(value) for name, value in vars(module).items()}
    try:
        with around(module):
            loss = module(x)
            if fails:
                raise Interrupted
    except Interrupted:
        pass
    else:
        loss.backward()
        assert module.weight.grad.tolist() == [3, 3]
    assert {name: id(value) for name, value in vars(module).items()} == identities
    assert (module.outputs, list(module.recent)) == ([1], [1])
    assert (module.table, module.names, module.count) == ({"a": 1}, {"a"}, 0)
    assert module.last.tolist() == [0, 0]
    assert [tensor.tolist() for tensor in module.nested["train"]] == [[0, 0]]
    assert float(module.steps) == 0
    assert module.unset is None
    assert not hasattr(module, "new")
    assert int(module.norm.num_batches_tracked) == 0
    assert module.metric.update_count == 0
