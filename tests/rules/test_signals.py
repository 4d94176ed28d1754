"""Signals of direct feedback and the penalty on scales, against formulas written out."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_credit.models import GPT, MLP
from lit_credit.rules import DFA, BlockFA
from lit_credit.tasks import Classification, NextToken
from tests.support import gradients, images, seeded


def mlp(activation="tanh"):
    return MLP(20, [16, 12], num_classes=5, activation=activation).double()


def batch():
    x, y = images()
    return x.double(), y


def rule(kind=DFA, net=mlp, task=None, **kwargs):
    return seeded(lambda: kind(net(), task or Classification(5), **kwargs))


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def outputs_of(net, x):
    one = net.layers[0](x)
    return one, net.layers[1](one)


def error_of(net, x, y):
    """d loss / d output of a mean cross entropy."""
    return (net(x).softmax(-1) - F.one_hot(y, 5)) / len(x)


SIGNALS = {
    "error": lambda e, y: e,
    "sign": lambda e, y: e.sign() / len(y),
    "target": lambda e, y: F.one_hot(y, 5).double() / len(y),
}


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("signal", SIGNALS)
def test_credit_is_the_signal_times_the_matrices(signal, normalize):
    x, y = batch()
    r = rule(signal=signal, normalize_credit=normalize)
    credit = r.credit((x, y))
    sent = SIGNALS[signal](error_of(r.net, x, y), y).detach()
    for unit, matrix in zip(r.credit_units, r.feedback.matrix.split([16, 12]), strict=True):
        expected = sent @ matrix.double().T
        if normalize:
            each = expected * len(x)
            expected = each / (each.pow(2).mean(1, keepdim=True).sqrt() + 1e-6) / len(x)
        assert_close(credit[unit], expected)


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_units_learn_from_their_credit_under_any_scale_of_the_loss(signal, normalize, penalty):
    x, y = batch()
    r = rule(signal=signal, normalize_credit=normalize, scale_penalty=penalty)
    credit = r.credit((x, y))
    named = dict(r.net.named_parameters())
    outputs = [outputs_of(r.net, x)[0], r.net.layers[1](outputs_of(r.net, x)[0].detach())]
    expected = F.cross_entropy(r.net.head(outputs[1].detach()), y)
    for unit, output in zip(r.credit_units, outputs, strict=True):
        expected = expected + (output * credit[unit]).sum() + penalty * output.pow(2).mean()
    wanted = torch.autograd.grad(expected, list(named.values()))
    for scale in (1.0, 1024.0):  # that of a GradScaler
        _, scalar = r.surrogate((x, y))
        found = torch.autograd.grad(scale * scalar, list(named.values()))
        for one, other in zip(found, wanted, strict=True):
            assert_close(one / scale, other)


def gpt():
    return GPT(vocab_size=7, block_size=6, depth=2, heads=2, width=8).double()


@pytest.mark.parametrize("signal", ["error", "sign", "target"])
def test_positions_of_a_sequence_get_their_own_signal(signal):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(7, (4, 6), generator=generator)
    target = torch.randint(7, (4, 6), generator=generator)
    r = rule(net=gpt, task=NextToken(), signal=signal)
    credit = r.credit((tokens, target))
    error = (r.net(tokens).softmax(-1) - F.one_hot(target, 7)) / 24
    sent = {"error": error, "sign": error.sign() / 24, "target": F.one_hot(target, 7) / 24}[signal]
    assert list(credit) == r.credit_units
    for unit, matrix in zip(credit, r.feedback.matrix.split(8), strict=True):
        assert_close(credit[unit], (sent.double() @ matrix.double().T).detach())


class Regression(Classification):
    """Targets of the output's shape, or of any other."""

    def loss(self, output, batch):
        return F.mse_loss(output, batch[1].expand_as(output))


def test_a_target_of_the_outputs_shape_is_sent_as_it_is():
    x, _ = batch()
    target = torch.randn(len(x), 5, dtype=torch.float64)
    r = rule(task=Regression(5), signal="target")
    credit = r.credit((x, target))
    assert_close(credit["net.layers.1"], target @ r.feedback.matrix[16:].double().T / len(x))


def test_a_target_of_another_shape_and_what_does_not_fit_is_refused():
    x, _ = batch()
    r = rule(task=Regression(5), signal="target")
    with pytest.raises(ValueError, match=r"`signal` target needs a target .*expected classes"):
        r.credit((x, torch.zeros(len(x), 1, dtype=torch.float64)))
    with pytest.raises(ValueError, match=r"`signal` is 'target'.*`error_at`"):
        rule(signal="target", error_at="readout")
    with pytest.raises(ValueError, match="`signal` is 'errors'"):
        rule(signal="errors")


def test_matrices_of_low_rank_project_the_error_once():
    x, y = batch()
    r = rule(rank=2)
    credit = r.credit((x, y))
    shared, own = r.feedback.projection.double(), r.feedback.matrix.double()
    assert shared.shape == (2, 5)
    assert own.shape == (28, 2)
    error = error_of(r.net, x, y).detach()
    for unit, matrix in zip(r.credit_units, own.split([16, 12]), strict=True):
        assert_close(credit[unit], error @ shared.T @ matrix.T)


@pytest.mark.parametrize("distribution", ["normal", "uniform", "kaiming", "xavier", "orthogonal"])
def test_the_variance_of_low_rank_matrices_is_that_of_full_ones(distribution):
    def variance(rank):
        net = MLP(20, [400], num_classes=50)
        r = seeded(lambda: DFA(net, Classification(50), rank=rank, feedback=distribution))
        r.credit((images()[0], images()[1]))
        matrix = r.feedback.matrix
        return float((matrix if rank is None else matrix @ r.feedback.projection).var())

    assert variance(20) == pytest.approx(variance(None), rel=0.15)


def test_the_error_at_the_readout_is_the_gradient_at_the_last_unit():
    x, y = batch()
    r = rule(error_at="readout")
    credit = r.credit((x, y))
    at_unit = (error_of(r.net, x, y) @ r.net.head.weight).detach()
    assert r.feedback.matrix.shape == (28, 12)
    for unit, matrix in zip(r.credit_units, r.feedback.matrix.split([16, 12]), strict=True):
        assert_close(credit[unit], at_unit @ matrix.double().T)
    found = gradients(r, (x, y))
    slope = 1 - outputs_of(r.net, x)[1] ** 2
    assert_close(found["layers.1.0.bias"], (credit["net.layers.1"] * slope).sum(0).detach())


# The penalty on scales


class Maps(nn.Module):
    credit_units = ("one", "two")
    readout = ("head",)

    def __init__(self):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Tanh())
        self.two = nn.Sequential(nn.Conv2d(3, 2, 2), nn.Tanh())
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        return self.head(self.two(self.one(x.unflatten(1, (1, 4, 5)))).flatten(1))


def linear_units():
    """Units of one linear layer, whose backward pass does without the dense credit."""
    net = nn.Sequential(nn.Linear(20, 16), nn.Linear(16, 12), nn.Linear(12, 5)).double()
    net.credit_units, net.readout = ["0", "1"], ["2"]
    return net


PENALISED = {
    "linear": (DFA, linear_units, {}),
    "maps": (DFA, lambda: Maps().double(), {}),
    "normalised": (DFA, mlp, {"normalize_credit": True}),
    "readout": (DFA, mlp, {"error_at": "readout"}),
    "exact": (BlockFA, mlp, {"top": "exact"}),
    "random": (BlockFA, mlp, {"top": "random"}),
    "block maps": (BlockFA, lambda: Maps().double(), {}),
}


def penalties(r, data):
    """The gradients of ``sum_l mean(f_l^2)``, each by its own unit."""
    _, graphs = r.run_units(data)
    total = sum(output.pow(2).mean() for output in graphs.outputs.values())
    named = dict(r.net.named_parameters())
    found = torch.autograd.grad(
        total, list(named.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(named, found, strict=True))


@pytest.mark.parametrize("case", PENALISED)
def test_the_penalty_adds_the_mean_square_of_every_output(case):
    kind, net, kwargs = PENALISED[case]
    plain = rule(kind, net, **kwargs)
    penalised = rule(kind, net, scale_penalty=0.3, **kwargs)
    without, found = gradients(plain, batch()), gradients(penalised, batch())
    added = penalties(plain, batch())
    assert sum(bool(value.abs().max() > 0) for value in added.values()) == 4  # W and b of two units
    for name, value in without.items():
        assert_close(found[name], value + 0.3 * added[name])
    for unit, value in plain.credit(batch()).items():
        assert_close(penalised.credit(batch())[unit], value)


def test_the_penalty_on_a_sequence_is_a_mean_over_all_entries():
    tokens = torch.randint(7, (4, 6), generator=torch.Generator().manual_seed(0))
    data = (tokens, tokens.roll(1, 1))
    plain, penalised = (rule(net=gpt, task=NextToken(), scale_penalty=s) for s in (0.0, 0.3))
    without, found = gradients(plain, data), gradients(penalised, data)
    for name, value in penalties(plain, data).items():
        assert_close(found[name], without[name] + 0.3 * value)


def test_the_penalty_needs_the_outputs_that_recompute_does_not_keep():
    with pytest.raises(ValueError, match=r"`scale_penalty` is 0.1.*`recompute`"):
        rule(scale_penalty=0.1, recompute=True)
    with pytest.raises(ValueError, match="`scale_penalty` is -1"):
        rule(scale_penalty=-1.0)
