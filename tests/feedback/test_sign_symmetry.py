"""Feedback with the signs of the weight, and feedback drawn anew."""

import copy

import pytest
import torch
from torch import nn

from lit_credit.feedback import add_feedback, feedback_layers, redraw_feedback


def input_gradient(layer):
    x = torch.zeros(1, layer.in_features, requires_grad=True)
    return torch.autograd.grad(layer(x).sum(), x)[0]


def test_usf_has_the_scale_of_each_layers_initial_weights():
    net = nn.Sequential(nn.Linear(30, 40), nn.Linear(40, 20), nn.Conv2d(3, 4, 5))
    nn.init.normal_(net[1].weight, std=0.5)
    initial = [layer.weight.detach().clone() for layer in net]
    add_feedback(net, distribution="weight_std", sign="weight", scale=2.0)
    with torch.no_grad():
        net[0].weight.neg_().mul_(3)  # the signs follow, the scale does not
    for pair, weight in zip(feedback_layers(net).values(), initial, strict=True):
        std = (weight - weight.mean()).square().mean().sqrt()
        torch.testing.assert_close(pair.feedback, 2 * std * pair.weight.sign())
    attention = add_feedback(nn.MultiheadAttention(8, 2), distribution="weight_std", sign="weight")
    assert (
        len({float(pair.feedback.abs().max()) for pair in feedback_layers(attention).values()}) == 4
    )
    torch.testing.assert_close(
        pair_std(attention, "k_proj"), attention.in_proj_weight[8:16].std(correction=0)
    )


def pair_std(attention, name):
    return feedback_layers(attention)[name].feedback.abs().max()


def test_usf_refuses_a_layer_whose_weights_do_not_vary():
    layer = nn.Linear(3, 4)
    nn.init.zeros_(layer.weight)
    with pytest.raises(ValueError, match="standard deviation of 0"):
        add_feedback(layer, distribution="weight_std", sign="weight")
    net = add_feedback(nn.Sequential(nn.Linear(3, 4)), distribution="weight_std", sign="weight")
    with pytest.raises(ValueError, match="weight_std"):
        redraw_feedback(net, 1)


def test_a_constant_has_equal_magnitudes_and_the_signs_of_the_weight():
    layer = add_feedback(nn.Linear(3, 4), distribution="constant", sign="weight")
    torch.testing.assert_close(input_gradient(layer), layer.weight.sign().sum(0)[None] / 2)


def test_frsf_tracks_the_current_sign():
    layer = add_feedback(nn.Linear(3, 4), sign="weight", scale=2.0)
    random = add_feedback(nn.Linear(3, 4), scale=2.0)
    magnitudes = layer.feedback.clone()
    assert torch.equal(magnitudes, random.feedback.abs())
    for factor in (1.0, -1.0, 0.0):
        with torch.no_grad():
            layer.weight.copy_(factor * layer.weight)
        expected = magnitudes * layer.weight.sign()
        torch.testing.assert_close(input_gradient(layer), expected.sum(0)[None])
        assert torch.equal(feedback_layers(layer)[""].feedback, expected)
    assert torch.equal(layer.feedback, magnitudes)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
        (nn.MultiheadAttention(4, 2), (5, 2, 4)),
        (nn.MultiheadAttention(4, 2, kdim=4, vdim=4), (5, 2, 4)),
    ],
)
def test_signs_reach_every_kind_of_layer(layer, shape):
    signed = add_feedback(copy.deepcopy(layer), sign="weight")
    fixed = add_feedback(copy.deepcopy(layer))
    for name, pair in feedback_layers(signed).items():
        assert torch.equal(pair.feedback.sign(), pair.weight.sign())
        # What a net with this very B fixed would compute.
        feedback_layers(fixed)[name].feedback.copy_(pair.feedback)
    gradients = []
    for net in (signed, fixed):
        x = torch.linspace(-1, 1, torch.Size(shape).numel()).view(shape).requires_grad_()
        attends = isinstance(net, nn.MultiheadAttention)
        y = net(x, x.square(), x.exp())[0] if attends else net(x)
        gradients.append(torch.autograd.grad(y.square().sum(), [x, *net.parameters()]))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_brsf_redraws_by_seed_alone():
    make = lambda: add_feedback(  # noqa: E731
        nn.Sequential(nn.Linear(3, 4), nn.MultiheadAttention(4, 2)), sign="weight"
    )
    net, other = make(), make()
    buffers = list(net.buffers())
    before = [buffer.clone() for buffer in buffers]
    state = torch.get_rng_state()
    redraw_feedback(net, 7)
    redraw_feedback(other, 5)
    redraw_feedback(other, 7)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(a is b for a, b in zip(net.buffers(), buffers, strict=True))
    for mine, theirs, old in zip(net.buffers(), other.buffers(), before, strict=True):
        assert torch.equal(mine, theirs)
        assert not torch.equal(mine, old)
        assert (mine >= 0).all()


def test_a_compiled_net_redraws_what_the_plain_one_does():
    nets = [nn.Sequential(nn.Linear(3, 4)) for _ in range(2)]
    for net in (nets[0], torch.compile(nets[1])):
        redraw_feedback(add_feedback(net), 7)
    assert torch.equal(nets[0][0].feedback, nets[1][0].feedback)


def test_tied_weights_stay_tied_when_redrawn():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    add_feedback(net)
    net.double()  # which gives each layer a tensor of its own
    drawn = net[0].feedback.clone()
    redraw_feedback(net, 0)  # the seed of `add_feedback`
    assert torch.equal(net[0].feedback, drawn)
    redraw_feedback(net, 1)
    assert not torch.equal(net[0].feedback, drawn)
    assert torch.equal(net[0].feedback, net[1].feedback)


def test_redraw_refusals():
    with pytest.raises(ValueError, match="no feedback layers"):
        redraw_feedback(nn.Linear(2, 2), 0)
    with pytest.raises(ValueError, match="the feedback of 0 is made of the weight"):
        redraw_feedback(add_feedback(nn.Sequential(nn.Linear(2, 2)), distribution="weight"), 0)
