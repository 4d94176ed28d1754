"""Every callback's numbers against a slow twin: plain autograd on a forward written by hand."""

import math
from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

from lit_credit.callbacks import (
    CreditAlignment,
    GradientNorms,
    ReferenceValidity,
    ResidualNorms,
    WeightAlignment,
)
from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.values import over_samples
from lit_credit.feedback import add_feedback
from lit_credit.models import MLP
from lit_credit.rules import BP, DFA, FA, FrozenUnits
from lit_credit.tasks import Classification
from tests import support
from tests.callbacks import twin

FLOAT32 = 2e-4


def layered(values, tag):
    return [
        values[f"{tag}/L{index:02d}"]
        for index in range(len(values))
        if f"{tag}/L{index:02d}" in values
    ]


@pytest.mark.parametrize("rule", [BP, FA, DFA])
def test_residual_norms_are_medians_of_the_stream(rule):
    module, (x, y) = twin.make(rule), twin.batch()
    stream, *_ = twin.run(twin.parameters(module), x)
    expected = [float(h.detach().norm(dim=1).median()) for h in stream]
    values = twin.measured(ResidualNorms(), module, (x, y))
    assert list(values) == ["norm/L00", "norm/L01", "norm/L02", "norm/L03"]
    assert list(values.values()) == pytest.approx(expected, rel=FLOAT32)


@pytest.mark.parametrize("rule", [BP, FA, DFA])
def test_gradient_norms_are_those_of_the_mean_loss_under_every_rule(rule):
    module, (x, y) = twin.make(rule), twin.batch()
    p = twin.parameters(module)
    # One sample at a time: the gradient of the mean loss at a sample's own h is 1 / N of its own.
    norms = torch.zeros(twin.N, twin.DEPTH + 1, dtype=torch.float64)
    for n in range(twin.N):
        stream, _, logits = twin.run(p, x[n : n + 1])
        gradients = torch.autograd.grad(F.cross_entropy(logits, y[n : n + 1]), stream)
        norms[n] = torch.stack([g.norm() for g in gradients]) / twin.N
    values = twin.measured(GradientNorms(), module, (x, y))
    assert layered(values, "norm") == pytest.approx(norms.median(0).values.tolist(), rel=FLOAT32)
    assert layered(values, "frobenius") == pytest.approx(norms.norm(dim=0).tolist(), rel=FLOAT32)


def test_gradients_pass_around_a_frozen_front():
    """The skip connection counts, although nothing before the first block is trained."""
    free, batch = twin.make(BP), twin.batch()
    frozen = twin.make(FrozenUnits, frozen=["embed", "blocks.*"])
    assert not frozen.net.embed.weight.requires_grad
    expected = twin.measured(GradientNorms(), free, batch)
    assert twin.measured(GradientNorms(), frozen, batch) == pytest.approx(expected)
    assert not frozen.net.embed.weight.requires_grad


def test_direct_credit_against_the_gradient_at_output_and_input():
    module = twin.make(DFA, normalize_credit=True)
    x, y = twin.batch()
    module.credit((x, y))  # draws B, which a measurement would leave undrawn
    values = twin.measured(CreditAlignment(), module, (x, y))
    stream, added, logits = twin.run(twin.parameters(module), x)
    gradients = torch.autograd.grad(F.cross_entropy(logits, y), [*added, *stream])
    at_output, at_stream = gradients[: len(added)], gradients[len(added) :]
    error = logits.detach().softmax(1) - F.one_hot(y, twin.CLASSES)
    matrices = module.feedback.matrix.double().split(twin.WIDTH)
    for index, matrix in enumerate(matrices):
        credit = error @ matrix.T
        cosines = twin.cosine(credit, at_output[index])
        assert values[f"cosine/L{index:02d}"] == pytest.approx(float(cosines.mean()), abs=FLOAT32)
        assert values[f"cosine_sd/L{index:02d}"] == pytest.approx(float(cosines.std()), abs=FLOAT32)
        if index:  # the embedding has an input of another size
            at_input = float(twin.cosine(credit, at_stream[index - 1]).mean())
            assert values[f"cosine_input/L{index:02d}"] == pytest.approx(at_input, abs=FLOAT32)
    assert "cosine_input/L00" not in values
    assert abs(values["cosine/L01"] - values["cosine_input/L01"]) > 0.001


def test_credit_of_feedback_alignment():
    module, (x, y) = twin.make(FA), twin.batch()
    values = twin.measured(CreditAlignment(), module, (x, y))
    p = twin.parameters(module)
    feedback = {
        name.removeprefix("net."): pair.feedback
        for name, pair in module.feedback_matrices().items()
    }
    _, added, logits = twin.run(p, x, feedback)
    credit = torch.autograd.grad(F.cross_entropy(logits, y), added, retain_graph=True)
    own = torch.autograd.grad(F.cross_entropy(logits, y), list(p.values()))
    stream, added, logits = twin.run(p, x)
    loss = F.cross_entropy(logits, y)
    exact = torch.autograd.grad(loss, added, retain_graph=True)
    at_stream = torch.autograd.grad(loss, stream, retain_graph=True)
    for index in range(twin.DEPTH + 1):
        at_output = float(twin.cosine(credit[index], exact[index]).mean())
        assert values[f"cosine/L{index:02d}"] == pytest.approx(at_output, abs=FLOAT32)
        if index:
            at_input = float(twin.cosine(credit[index], at_stream[index - 1]).mean())
            assert values[f"cosine_input/L{index:02d}"] == pytest.approx(at_input, abs=FLOAT32)
    gradients = torch.autograd.grad(loss, list(p.values()))
    for name, a, b in zip(p, own, gradients, strict=True):
        expected = float(twin.cosine(a[None], b[None]))
        assert values[f"update/{name}"] == pytest.approx(expected, abs=FLOAT32)
    assert values["update/out_head.weight"] == pytest.approx(1)
    assert values["update/embed.weight"] < 0.9


def test_update_cosines_of_direct_feedback():
    module, (x, y) = twin.make(DFA), twin.batch()
    module.credit((x, y))  # draws B
    values = twin.measured(CreditAlignment(), module, (x, y))
    p = twin.parameters(module)
    stream, _, logits = twin.run(p, x)
    exact = torch.autograd.grad(F.cross_entropy(logits, y), list(p.values()))
    error = (logits.detach().softmax(1) - F.one_hot(y, twin.CLASSES)) / twin.N
    inputs = [x.double(), *(h.detach() for h in stream[:-1])]
    for index, matrix in enumerate(module.feedback.matrix.double().split(twin.WIDTH)):
        q = twin.parameters(module)
        unit = "embed" if index == 0 else f"blocks.{index - 1}"
        if index == 0:
            output = twin.linear(inputs[0], q, "embed", None)
        else:
            h = F.layer_norm(
                inputs[index], (twin.WIDTH,), q[f"{unit}.norm.weight"], q[f"{unit}.norm.bias"]
            )
            output = F.gelu(twin.linear(h, q, f"{unit}.w1", None))
            output = twin.linear(output, q, f"{unit}.w2", None)
        names = [name for name in q if name.startswith(f"{unit}.")]
        own = torch.autograd.grad((output * (error @ matrix.T)).sum(), [q[name] for name in names])
        for name, a in zip(names, own, strict=True):
            expected = float(twin.cosine(a[None], exact[list(p).index(name)][None]))
            assert values[f"update/{name}"] == pytest.approx(expected, abs=FLOAT32)
    assert values["update/out_head.weight"] == pytest.approx(1)


def test_backpropagation_is_aligned_with_itself():
    values = twin.measured(CreditAlignment(), twin.make(BP), twin.batch())
    aligned = [v for tag, v in values.items() if tag.startswith(("cosine/", "update/"))]
    assert aligned == pytest.approx([1.0] * len(aligned))
    assert max(layered(values, "cosine_sd")) < 1e-6


def test_updates_of_a_foreign_module():
    plain, converted = support.Foreign(), support.Foreign()
    add_feedback(converted.model)
    batch = support.tensors(7)
    values = twin.measured(CreditAlignment(), plain, batch)
    assert list(values) == [f"update/{name}" for name, _ in plain.named_parameters()]
    assert list(values.values()) == pytest.approx([1.0] * len(values))
    values = twin.measured(CreditAlignment(), converted, batch)
    assert values["update/model.head.weight"] == pytest.approx(1)
    assert abs(values["update/model.embed.0.weight"]) < 0.9


class Partial(support.Foreign):
    """Some parameters have no gradient, one is a single number, and the loss is random."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.ones(3))
        self.temperature = torch.nn.Parameter(torch.tensor(2.0))

    def training_step(self, batch, batch_idx):
        x, y = batch
        noisy = x + torch.randn_like(x)
        return F.cross_entropy(self.model(noisy) / self.temperature, y)


def test_parameters_without_a_gradient_are_undefined_and_random_losses_comparable():
    values = twin.measured(CreditAlignment(), Partial(), support.tensors(7))
    assert math.isnan(values.pop("update/unused"))
    assert values["update/temperature"] == 1
    assert list(values.values()) == pytest.approx([1.0] * len(values))


@pytest.mark.parametrize(("rule", "net"), [(FA, "residual"), (DFA, "mlp")])
def test_weights_against_feedback(rule, net):
    if net == "residual":
        module, batch = twin.make(rule), twin.batch()
    else:
        module = rule(MLP(twin.FEATURES, [16, 8], num_classes=4), Classification(4))
        batch = twin.batch()
    # Before any batch: direct feedback draws its matrices for the measurement.
    values = twin.measured(WeightAlignment(), module, batch)
    pairs = module.feedback_matrices()
    assert len(values) == 2 * len(pairs) > 0
    for name, (feedback, weight) in pairs.items():
        w, b = weight.detach().double().flatten(), feedback.double().flatten()
        angle = math.degrees(math.acos(float(w @ b / w.norm() / b.norm())))
        tag = name.removeprefix("net.")
        assert values[f"angle/{tag}"] == pytest.approx(angle)
        assert values[f"ratio/{tag}"] == pytest.approx(float(b.norm() / w.norm()))


class Rounding(torch.nn.Module):
    """Loses most digits on its way, in float32."""

    def forward(self, h):
        return (h * 1e6).sin() * 1e-5 + h


class Delicate(support.Foreign):
    def __init__(self):
        super().__init__()
        self.model = torch.nn.Sequential(
            torch.nn.Linear(12, 8), Rounding(), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 4)
        )


def test_reference_validity_compares_with_float64_and_brings_float32_back():
    module, (x, y) = Delicate(), support.tensors(15)
    places = [(t.data_ptr(), t.dtype) for t in [*module.parameters(), *module.buffers()]]
    state = deepcopy(module.state_dict())
    values = twin.measured(ReferenceValidity(units=["model.0", "model.1"]), module, (x, y))
    gradients = []
    for net, data in ((module.model, x), (deepcopy(module.model).double(), x.double())):
        points = [data.clone().requires_grad_()]
        for layer in net[:2]:
            points.append(layer(points[-1]))
        loss = F.cross_entropy(net[3](net[2](points[-1])), y)
        gradients.append(torch.autograd.grad(loss, points))
    for index, (g, double) in enumerate(zip(*gradients, strict=True)):
        cosines = twin.cosine(g, double)
        assert values[f"cosine/L{index:02d}"] == pytest.approx(float(cosines.mean()), abs=1e-6)
        assert values[f"cosine_min/L{index:02d}"] == pytest.approx(float(cosines.min()), abs=1e-6)
    assert values["cosine/L00"] < 0.99999 < values["cosine/L02"]
    tensors = [*module.parameters(), *module.buffers()]
    assert places == [(t.data_ptr(), t.dtype) for t in tensors]
    assert all(torch.equal(state[name], t) for name, t in module.state_dict().items())


def test_an_overflowed_gradient_is_an_undefined_reference():
    module = twin.make(BP)
    module.net.out_head.weight.data.fill_(math.inf)
    values = twin.measured(ReferenceValidity(), module, twin.batch())
    assert values.pop("share_below") == 0
    assert all(math.isnan(value) for value in values.values())


def test_numbers_over_samples_are_over_those_that_are_defined():
    values = torch.tensor([0.5, math.nan, 1.0, math.nan])
    assert over_samples(values) == (0.75, pytest.approx(math.sqrt(0.125)), 0.5)
    one = over_samples(values[:2])
    assert (one.mean, one.min) == (0.5, 0.5)
    assert math.isnan(one.sd)
    assert all(math.isnan(number) for number in over_samples(values[1:2]))


def test_a_unit_that_takes_whole_numbers_has_no_gradient_at_its_input():
    class Symbols(torch.nn.Module):
        credit_units, readout = ("embed", "hidden"), ("head",)

        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(5, 8)
            self.hidden = torch.nn.Linear(8, 8)
            self.head = torch.nn.Linear(8, 4)

        def forward(self, x):
            return self.head(self.hidden(self.embed(x)))

    x, y = torch.arange(5), torch.arange(5) % 4
    module = support.rule(BP, Symbols)
    callback = CreditAlignment(parameters=False)
    callback.prepare(None, module)
    values = callback.measure(module, [Chunk(module, (x, y))])
    assert set(values) == {
        "cosine/L00",
        "cosine_sd/L00",
        "cosine/L01",
        "cosine_sd/L01",
        "cosine_input/L01",
    }
    assert math.isclose(values["cosine/L00"], 1, rel_tol=1e-6)
