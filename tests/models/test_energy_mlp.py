"""The energy net: fixed points, energy, gradients, options."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from lit_credit.models import EnergyMLP
from tests.support import images, seeded


def made(activation="tanh", output="linear", steps=300):
    return seeded(lambda: EnergyMLP(20, [16, 12], 5, activation, output, steps).double())


X = images()[0].double()


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("output", ["linear", "state"])
def test_large_weights_settle_at_a_fixed_point_where_the_energy_never_rose(activation, output):
    net = made(activation, output)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3)  # where updates of all layers at once alternate for ever
        states = net.relax([X], steps=0)
        energies = []
        for _ in range(600):
            states = net.relax([X], states, 1)
            energies.append(total(net, states))
        after = net.relax([X], states, 1)
    for one, other in zip(states, after, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    rises = [float((b - a).max()) for a, b in pairwise(energies)]
    assert max(rises) < 1e-9


def total(net, states):
    """The whole energy, R(s) - Phi, with R' the inverse of the activation."""
    pieces = {
        "tanh": lambda s: s * s.atanh() + 0.5 * (1 - s * s).log(),
        "sigmoid": lambda s: torch.special.xlogy(s, s) + torch.special.xlogy(1 - s, 1 - s),
        "hard_sigmoid": lambda s: 0.5 * s * s,
    }
    limits = {"tanh": (-1 + 1e-12, 1 - 1e-12)}.get(net.activation, (0, 1))
    own = sum(pieces[net.activation](s.clamp(*limits)).sum(1) for s in states)
    return own + net.energy([X], states)


def test_the_gradient_is_that_of_the_forward_pass():
    net = seeded(lambda: EnergyMLP(4, [3, 2], 2, "tanh", steps=4).double())
    x = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    names, values = zip(*net.named_parameters(), strict=True)

    def run(*parameters):
        return torch.func.functional_call(net, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, values)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("output", ["linear", "state"])
def test_forward_is_the_relaxation_and_the_readout(output, bias):
    net = EnergyMLP(20, [16, 12], 5, output=output, bias=bias).double()
    assert net.credit_units == [f"layers.{i}" for i in range(2 if output == "linear" else 3)]
    assert net.readout == (["head"] if output == "linear" else [])
    assert [name for name, _ in net.named_parameters() if "bias" in name] == (
        [] if not bias else [f"{n}.bias" for n in (*net.credit_units, *net.readout)]
    )
    states = net.relax([X.unflatten(1, (4, 5))])
    torch.testing.assert_close(net(X), net.output_of(states))
    drives = [X @ net.layers[0].weight.T, states[0] @ net.layers[1].weight.T]
    biases = [layer.bias if bias else 0 for layer in net.layers]
    phi = sum((s * (d + b)).sum(1) for s, d, b in zip(states, drives, biases, strict=False))
    if output == "linear":
        torch.testing.assert_close(net.energy([X], states), -phi)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"hidden": []}, "`hidden` is empty"),
        ({"activation": "relu"}, "`activation` is 'relu', expected 'hard_sigmoid', 'sigmoid' or"),
        ({"output": "head"}, "`output` is 'head', expected 'linear' or 'state'"),
        ({"steps": 0}, "`steps` is 0, expected at least 1"),
        ({"init": "normal"}, "`init_std` is None"),
    ],
)
def test_what_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        EnergyMLP(**kwargs)


def test_a_sample_of_another_size_is_refused():
    with pytest.raises(ValueError, match="`in_features` is 20"):
        made()(torch.zeros(2, 3, dtype=torch.float64))


def test_it_trains_by_hand_without_lightning():
    net = seeded(lambda: EnergyMLP(20, [16], 5, steps=10))
    x, y = images()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
