"""Whole nets: hand-written backward passes, torchvision, torch.compile."""

import copy
import math

import pytest
import torch
import torch.utils.checkpoint
import torchvision
from torch import nn
from torch.nn import functional as F

from lit_credit.feedback import add_feedback
from lit_credit.inspect.exact_backward import exact_backward


def gelu_slope(x):
    return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * torch.exp(-x * x / 2) / math.sqrt(
        2 * math.pi
    )


def layer_norm_backward(x, g):
    """Gradient at the input of an affine-free LayerNorm, row by row."""
    rows = []
    for row, grad in zip(x, g, strict=True):
        deviation = torch.sqrt(row.var(correction=0) + 1e-5)
        z = (row - row.mean()) / deviation
        rows.append((grad - grad.mean() - z * (grad * z).mean()) / deviation)
    return torch.stack(rows)


def test_mlp_against_a_hand_written_chain():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 5),
        nn.LayerNorm(5, elementwise_affine=False),
        nn.GELU(),
        nn.Linear(5, 4),
        nn.GELU(),
        nn.Linear(4, 3),
    ).double()
    add_feedback(net, seed=3)
    x, y = torch.randn(8, 6, dtype=torch.float64), torch.randint(3, (8,))
    F.cross_entropy(net(x), y).backward()

    first, _, _, second, _, readout = net
    with torch.no_grad():
        h1 = x @ first.weight.T + first.bias
        n1 = F.layer_norm(h1, (5,))
        a1 = F.gelu(n1)
        h2 = a1 @ second.weight.T + second.bias
        a2 = F.gelu(h2)
        e = (torch.softmax(a2 @ readout.weight.T + readout.bias, 1) - F.one_hot(y, 3)) / 8
        g2 = (e @ readout.feedback) * gelu_slope(h2)
        g1 = layer_norm_backward(h1, (g2 @ second.feedback) * gelu_slope(n1))
    for layer, g, a in [(first, g1, x), (second, g2, a1), (readout, e, a2)]:
        torch.testing.assert_close(layer.weight.grad, torch.einsum("no,ni->oi", g, a))
        torch.testing.assert_close(layer.bias.grad, g.sum(0))


def test_convolutional_net_against_loops():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), nn.Tanh(), nn.Conv1d(3, 2, 2, stride=2))
    net.double()
    add_feedback(net, seed=3)
    x = torch.randn(2, 2, 6, dtype=torch.float64)
    g = torch.randn(2, 2, 3, dtype=torch.float64)
    net(x).backward(g)

    first, _, second = net
    hidden = torch.tanh(F.conv1d(x, first.weight, first.bias, padding=1)).detach()
    credit, update = torch.zeros_like(hidden), torch.zeros_like(first.weight)
    for n in range(2):
        for out in range(2):
            for t in range(3):
                for k in range(2):
                    credit[n, :, 2 * t + k] += g[n, out, t] * second.feedback[out, :, k]
    delta = credit * (1 - hidden**2)
    padded = F.pad(x, (1, 1))
    for n in range(2):
        for t in range(6):
            update += torch.einsum("o,ik->oik", delta[n, :, t], padded[n, :, t : t + 3])
    torch.testing.assert_close(first.weight.grad, update)
    torch.testing.assert_close(first.bias.grad, delta.sum((0, 2)))


class Stacked(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def transformer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return Stacked(nn.Linear(5, 8), encoder, nn.Linear(8, 3))


def vision_transformer():
    return torchvision.models.VisionTransformer(
        image_size=8, patch_size=4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16
    )


NETS = {
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=4), (2, 3, 32, 32)),
    "vit": (vision_transformer, (2, 3, 8, 8)),
    "transformer": (transformer, (2, 6, 5)),
}
READOUT = {"resnet18": "fc.", "vit": "heads.", "transformer": "layers.2."}


def update(net, x):
    torch.manual_seed(0)
    output = net(x)
    loss = (output * torch.arange(1.0, output.numel() + 1).view(output.shape).sin()).sum()
    names, parameters = zip(*net.named_parameters(), strict=True)
    return output, dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("training", [True, False])
def test_known_architectures(name, training):
    make, shape = NETS[name]
    torch.manual_seed(0)
    plain = make().double().train(training)
    for parameter in plain.parameters():  # torchvision's ViT starts with a readout of zeros
        nn.init.normal_(parameter, std=0.2)
    x = torch.randn(shape, dtype=torch.float64)
    output, true = update(copy.deepcopy(plain), x)
    as_bp = copy.deepcopy(plain)
    add_feedback(as_bp, distribution="weight")
    random = add_feedback(copy.deepcopy(plain), seed=1)
    for key, mine in update(as_bp, x)[1].items():
        torch.testing.assert_close(mine, true[key], rtol=1e-8, atol=1e-8)
    random_output, mine = update(random, x)
    assert torch.equal(random_output, output)
    for key in true:
        same = torch.allclose(mine[key], true[key])
        zero = not true[key].abs().max() > 1e-9  # a key's bias has no influence
        assert same == key.startswith(READOUT[name]) or zero
    with torch.no_grad():
        torch.testing.assert_close(random(x), plain(x), rtol=0, atol=0)
    with exact_backward(random):
        for key, exact in update(random, x)[1].items():
            torch.testing.assert_close(exact, true[key], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sign", ["random", "weight"])
def test_compiled(sign):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv1d(3, 8, 3, padding="same"),
        nn.Flatten(),
        nn.Linear(48, 8),
        nn.GELU(),
        nn.Linear(8, 2),
    )
    add_feedback(net, sign=sign)
    x = torch.randn(4, 3, 6)
    expected = update(net, x)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected[0])
    for key, mine in update(compiled, x)[1].items():
        torch.testing.assert_close(mine, expected[1][key.removeprefix("_orig_mod.")])
    with exact_backward(net):
        true = update(net, x)[1]
        for key, mine in update(compiled, x)[1].items():
            torch.testing.assert_close(mine, true[key.removeprefix("_orig_mod.")])
    assert not torch.allclose(true["2.weight"], expected[1]["2.weight"])


def test_compiled_attention():
    torch.manual_seed(0)
    net = add_feedback(transformer())
    x = torch.randn(2, 6, 5)
    expected = update(net, x)[1]
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    for key, mine in update(compiled, x)[1].items():
        torch.testing.assert_close(mine, expected[key.removeprefix("_orig_mod.")])


def test_activation_checkpointing():
    net = add_feedback(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))
    x = torch.randn(2, 3, requires_grad=True)
    (expected,) = torch.autograd.grad(net(x).sum(), x)
    y = torch.utils.checkpoint.checkpoint(net, x, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], expected)
