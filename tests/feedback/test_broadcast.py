"""Credits that enter the backward pass of the loss, against gradients of written-out scalars."""

import pytest
import torch
from torch import nn

from lit_credit.feedback import Broadcast, DirectFeedback, local_units


def make_net():
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.Sequential(nn.Linear(8, 7), nn.Tanh()), nn.Linear(7, 2)]
    return nn.Sequential(*layers).double()


def written_out(net, x, scale, normalize, feedback):
    """Gradients of <f_l, a_l> for both units, and of the loss for the readout."""
    first = net[0](x)
    second = net[1](first.detach())
    output = net[2](second.detach())
    loss = output.square().mean(0).sum()
    (error,) = torch.autograd.grad(loss, output, retain_graph=True)
    total = loss
    for f, matrix in zip((first, second), feedback.matrix.double().split([8, 7]), strict=True):
        credit = error @ matrix.T
        if normalize:
            rms = (credit * len(x)).square().mean(-1, keepdim=True).sqrt()
            credit = credit / (rms + 1e-6)
        total = total + (f * credit.detach()).sum()
    return torch.autograd.grad(scale * total, list(net.parameters()))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1024.0])
@pytest.mark.parametrize("samples", [3, 64])  # 64: the linear unit takes its credit as a product
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_those_of_the_written_out_scalar(normalize, scale, samples, recompute):
    net, x = make_net(), torch.randn(samples, 6, dtype=torch.float64)
    feedback = DirectFeedback(["0", "1"], normalize=normalize)
    broadcast = Broadcast(feedback)
    with local_units(net, ["0", "1"], recompute=recompute) as graphs:
        output = net(x)
    loss = broadcast(output, graphs).square().mean(0).sum()
    broadcast.watch(loss)
    found = torch.autograd.grad(scale * loss, list(net.parameters()))
    for gradient, expected in zip(
        found, written_out(net, x, scale, normalize, feedback), strict=True
    ):
        torch.testing.assert_close(gradient, expected)


def test_frozen_units_are_left_out_and_forwards_are_restored():
    net, x = make_net(), torch.randn(64, 6, dtype=torch.float64)
    net[0].requires_grad_(False)
    with local_units(net, ["0", "1"]) as graphs:
        output = net(x)
    Broadcast(DirectFeedback(["0", "1"]))(output, graphs).sum().backward()
    assert net[0].weight.grad is None
    assert net[1][0].weight.grad is not None
    assert not any("forward" in vars(module) for module in net.modules())


def test_an_output_that_is_no_tensor_is_refused():
    with local_units(make_net(), ["0"]) as graphs, pytest.raises(ValueError, match="one tensor"):
        Broadcast(DirectFeedback(["0"]))([1.0], graphs)
