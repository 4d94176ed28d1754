"""DFA on flat nets against Nokland's equation 7 written out: ``delta_l = (B_l e) * f'(z_l)``."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from lit_credit.rules import DFA
from lit_credit.tasks import Classification
from tests.support import gradients, seeded

CLASSES = 4


class TanhMLP(nn.Module):
    """Two hidden layers with one activation that both use."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 9), nn.Linear(9, 8), nn.Linear(8, CLASSES)
        self.act = nn.Tanh()

    def forward(self, x):
        return self.fc3(self.act(self.fc2(self.act(self.fc1(x)))))


class FunctionalMLP(TanhMLP):
    def forward(self, x):
        return self.fc3(torch.tanh(self.fc2(self.fc1(x).tanh())))


class LeNet(nn.Module):
    """Convolution, activation and pooling, the latter two as functions."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 4, 3)
        self.fc1, self.fc2 = nn.Linear(16, 10), nn.Linear(10, CLASSES)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class ModularLeNet(LeNet):
    """The same of submodules; one ReLU and one pooling serve both convolutions."""

    def __init__(self):
        super().__init__()
        self.relu, self.pool = nn.ReLU(), nn.MaxPool2d(2)

    def forward(self, x):
        x = self.pool(self.relu(self.conv1(x)))
        x = self.pool(self.relu(self.conv2(x)))
        return self.fc2(self.relu(self.fc1(x.flatten(1))))


def error_of(logits, y):
    e = logits.softmax(-1)
    e[torch.arange(len(y)), y] -= 1
    return e / len(y)


@torch.no_grad()
def mlp_gradients(net, x, y, matrices):
    """No autograd: products, and the derivative of tanh."""
    h1 = torch.tanh(net.fc1(x))
    h2 = torch.tanh(net.fc2(h1))
    e = error_of(net.fc3(h2), y)
    b1, b2 = torch.split(matrices, [9, 8])
    d1 = (e @ b1.T) * (1 - h1**2)
    d2 = (e @ b2.T) * (1 - h2**2)
    layers = zip(("fc1", "fc2", "fc3"), (d1, d2, e), (x, h1, h2), strict=True)
    return {
        f"{name}.{kind}": gradient
        for name, d, h in layers
        for kind, gradient in (("weight", d.T @ h), ("bias", d.sum(0)))
    }


@torch.no_grad()
def lenet_gradients(net, x, y, matrices):
    """No autograd: unpooling, the derivative of relu, and sums of products."""

    def stage(conv, h):
        z = conv(h)
        pooled, at = F.max_pool2d(z.relu(), 2, return_indices=True)
        return z, at, pooled

    z1, at1, h1 = stage(net.conv1, x)
    z2, at2, h2 = stage(net.conv2, h1)
    z3 = net.fc1(h2.flatten(1))
    h3 = z3.relu()
    e = error_of(net.fc2(h3), y)
    b1, b2, b3 = torch.split(matrices, [h1[0].numel(), h2[0].numel(), 10])
    found = {}
    stages = (("conv1", x, z1, at1, h1, b1), ("conv2", h1, z2, at2, h2, b2))
    for name, h, z, at, pooled, b in stages:
        arrived = F.max_unpool2d((e @ b.T).view_as(pooled), at, 2, output_size=z.shape)
        d = arrived * (z > 0)
        found[f"{name}.weight"] = conv2d_weight(h, net.get_submodule(name).weight.shape, d)
        found[f"{name}.bias"] = d.sum((0, 2, 3))
    d3 = (e @ b3.T) * (z3 > 0)
    found |= {"fc1.weight": d3.T @ h2.flatten(1), "fc1.bias": d3.sum(0)}
    return found | {"fc2.weight": e.T @ h3, "fc2.bias": e.sum(0)}


MLP_CASES = [
    (TanhMLP, ["fc1+act", "fc2+act"]),
    (TanhMLP, ["fc[12]+act"]),
    (TanhMLP, ["fc1->", "fc2->"]),
    (TanhMLP, ["fc1+act", "fc2->fc3"]),
    (FunctionalMLP, ["fc[12]->"]),
]
LENET_CASES = [
    (LeNet, ["conv*->", "fc1->"]),
    (LeNet, ["conv1->conv2", "conv2->fc1", "fc1->fc2"]),
    (ModularLeNet, ["conv1+relu+pool", "conv2+relu+pool", "fc1+relu"]),
    (ModularLeNet, ["conv*+relu->", "fc1->"]),
]
CASES = [
    *((net, units, mlp_gradients, (12, 6), "fc3") for net, units in MLP_CASES),
    *((net, units, lenet_gradients, (6, 1, 14, 14), "fc2") for net, units in LENET_CASES),
]


def batch_of(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, torch.arange(shape[0]) % CLASSES


def double_rule(net, units, readout, **options):
    return seeded(
        lambda: DFA(net(), Classification(CLASSES), units=units, readout=[readout], **options)
    ).double()


@pytest.mark.parametrize("options", [{}, {"recompute": True}], ids=str)
@pytest.mark.parametrize(("net", "units", "by_hand", "shape", "readout"), CASES)
def test_the_update_is_that_of_equation_7(net, units, by_hand, shape, readout, options):
    rule = double_rule(net, units, readout, error="flattened", **options)
    batch = batch_of(shape)
    found = gradients(rule, batch)
    expected = by_hand(rule.net, *batch, rule.feedback.matrix.double())
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-12, atol=1e-15)
        cosine = F.cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0, eps=1e-30)
        assert abs(cosine.item() - 1) < 1e-12


@pytest.mark.filterwarnings("ignore:.*in front of:UserWarning")
def test_without_its_activation_a_unit_learns_by_another_rule():
    rule = double_rule(TanhMLP, ["fc1", "fc2"], "fc3")
    x, y = batch_of((12, 6))
    batch = 30 * x, y  # where tanh is bent
    found = gradients(rule, batch)
    expected = mlp_gradients(rule.net, *batch, rule.feedback.matrix.double())
    for name in ("fc1.weight", "fc2.weight"):
        assert F.cosine_similarity(found[name].flatten(), expected[name].flatten(), dim=0) < 0.98


@pytest.mark.parametrize(
    ("net", "units", "by_hand", "shape", "readout"), [CASES[1], CASES[len(MLP_CASES)]]
)
def test_20_steps_end_at_the_weights_of_the_loop_by_hand(net, units, by_hand, shape, readout):
    rule = double_rule(net, units, readout)
    batch = batch_of(shape)
    rule.credit(batch)  # draws the matrices
    twin, matrices = copy.deepcopy(rule.net), rule.feedback.matrix.double()
    start = copy.deepcopy(rule.net.state_dict())
    optimizer = torch.optim.SGD(rule.net.parameters(), lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        rule.surrogate(batch)[1].backward()
        optimizer.step()
        with torch.no_grad():
            step = by_hand(twin, *batch, matrices)
            for name, parameter in twin.named_parameters():
                parameter -= 0.1 * step[name]
    for name, parameter in twin.named_parameters():
        assert not torch.equal(parameter, start[name])
        torch.testing.assert_close(rule.net.get_parameter(name), parameter, rtol=1e-9, atol=1e-12)
