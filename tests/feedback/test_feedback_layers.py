"""Linear and convolutional layers, one at a time, against autograd on the plain layer."""

import copy

import pytest
import torch
from torch import nn

from lit_credit.feedback import add_feedback, feedback_layers
from lit_credit.inspect.exact_backward import exact_backward

CONVOLUTIONS = [
    {},
    {"stride": 2, "padding": 1},
    {"dilation": 2, "groups": 2, "bias": False},
    {"groups": 4, "padding": 2},
    {"padding": "same"},
    {"padding": "same", "dilation": 3},
    {"padding": "valid", "stride": 2},
    {"padding": 1, "padding_mode": "reflect"},
    {"padding": 2, "padding_mode": "circular", "stride": 2},
    {"padding": "same", "padding_mode": "replicate"},
]
SIZES = {1: (9,), 2: (9, 8), 3: (7, 6, 8)}


def convolution(dimensions, kernel_size=3, **arguments):
    kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
    return kind(4, 8, kernel_size, **arguments).double()


def cases():
    for shape in [(5,), (3, 5), (2, 3, 5), (2, 1, 3, 5), (0, 5)]:
        yield pytest.param(nn.Linear(5, 4).double(), shape, id=f"linear-{shape}")
    yield pytest.param(nn.Linear(5, 4, bias=False).double(), (3, 5), id="linear-no-bias")
    for dimensions, size in SIZES.items():
        for number, arguments in enumerate(CONVOLUTIONS):
            for kernel_size in (3, 2) if arguments.get("padding") == "same" else (3,):
                layer = convolution(dimensions, kernel_size, **arguments)
                label = f"conv{dimensions}d-{number}-{kernel_size}"
                yield pytest.param(layer, (2, 4, *size), id=label)
        yield pytest.param(convolution(dimensions), (4, *size), id=f"conv{dimensions}d-unbatched")


def gradients(layer, x):
    """Output, and gradients of a loss whose own gradient differs from entry to entry."""
    x = x.clone().requires_grad_()
    y = layer(x)
    loss = (y * torch.arange(1.0, y.numel() + 1).view(y.shape).sin()).sum()
    return y.detach(), torch.autograd.grad(loss, [x, *layer.parameters()])


# torch says of an even kernel with padding="same" that it may copy the input; so do we.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize(("plain", "shape"), list(cases()))
def test_against_autograd(plain, shape):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    y, true = gradients(plain, x)
    layer = add_feedback(copy.deepcopy(plain), distribution="weight")
    assert type(layer).__name__.startswith("Feedback")
    assert isinstance(layer, type(plain))
    for mine, theirs in zip(gradients(layer, x)[1], true, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)

    # With a random B: the input's gradient is that of a layer whose weight is B, the weight's and
    # the bias's gradients are their own, and the forward has not one bit of B.
    layer = add_feedback(copy.deepcopy(plain), seed=1)
    mine_y, mine = gradients(layer, x)
    assert torch.equal(mine_y, y)
    other = copy.deepcopy(plain)
    other.weight.data.copy_(feedback_layers(layer)[""].feedback)
    torch.testing.assert_close(mine[0], gradients(other, x)[1][0], rtol=1e-12, atol=1e-12)
    for own, theirs in zip(mine[1:], true[1:], strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-12, atol=1e-12)

    with exact_backward(layer):
        for mine, theirs in zip(gradients(layer, x)[1], true, strict=True):
            assert torch.equal(mine, theirs)
    assert layer.feedback_backward


@pytest.mark.parametrize("make", [lambda: nn.Linear(6, 4), lambda: nn.Conv2d(6, 4, 3)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(make, dtype):
    plain = make()
    layer = add_feedback(copy.deepcopy(plain), distribution="weight")
    x = torch.randn(3, 6, *(5, 5)[: plain.weight.dim() - 2], requires_grad=True)
    results = []
    for net in (plain, layer):
        with torch.autocast("cpu", dtype=dtype):
            y = net(x)
        results.append((y, *torch.autograd.grad(y.float().square().sum(), [x, *net.parameters()])))
    assert torch.equal(results[0][0], results[1][0])
    assert results[1][0].dtype == dtype
    for true, mine in zip(*results, strict=True):
        assert mine.dtype == true.dtype
        torch.testing.assert_close(mine, true, rtol=2e-2, atol=2e-2)


def test_autocast_leaves_float64_alone():
    layer = add_feedback(nn.Linear(3, 3).double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.randn(2, 3).double()).dtype == torch.float64


def test_frozen_weights_and_inputs_without_gradient():
    layer = add_feedback(nn.Sequential(nn.Linear(3, 3), nn.Conv1d(3, 3, 1)))
    for child in layer:
        child.weight.requires_grad_(False)
    x = torch.randn(3, 3, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert layer[0].weight.grad is None
    assert layer[0].bias.grad is not None
    add_feedback(nn.Linear(3, 2))(torch.randn(2, 3)).sum().backward()


def test_no_grad_and_inference_mode():
    layer = add_feedback(nn.Linear(3, 2))
    with torch.no_grad():
        assert layer(torch.ones(1, 3)).grad_fn is None
    with torch.inference_mode():
        assert layer(torch.ones(1, 3)).is_inference()


def test_second_derivatives_and_functional_transforms_are_refused():
    layer = add_feedback(nn.Linear(3, 2))
    x = torch.randn(4, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="setup_context"):
        torch.func.grad(lambda z: layer(z).sum())(x)
    with exact_backward(layer):
        (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        first.sum().backward()
        assert torch.func.grad(lambda z: layer(z).sum())(x).shape == x.shape
