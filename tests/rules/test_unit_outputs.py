"""What a unit may hand on: containers, views, what is changed in place, complex numbers."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_credit.callbacks import (
    CreditAlignment,
    GradientNorms,
    ReferenceValidity,
    ResidualNorms,
    ScaleStability,
)
from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.inspect.capture import Point
from lit_credit.rules import BP, DFA, FA, BlockFA
from lit_credit.tasks import Classification
from tests.support import (
    CLASSES,
    FEATURES,
    WIDTH,
    Foreign,
    fit,
    same_state,
    seeded,
    tensors,
    train_loader,
)

TASK = Classification(CLASSES)


@dataclass
class Output:
    index: Tensor
    hidden: Tensor


class Unit(nn.Module):
    """A layer that hands on what it is told to hand on."""

    def __init__(self, hand_on, dtype=torch.float32):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH, dtype=dtype)
        self.hand_on = hand_on

    def forward(self, h):
        return self.hand_on(self.layer(h.to(self.layer.weight.dtype)).tanh(), h)


class Net(nn.Module):
    credit_units = ("embed", "unit", "last")
    readout = ("head",)

    def __init__(self, hand_on, use, dtype=torch.float32):
        super().__init__()
        self.embed, self.head = nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.unit, self.last = Unit(hand_on, dtype), Unit(lambda f, h: f)
        self.use = use

    def forward(self, x):
        h = self.embed(x)
        h = self.use(self.unit(h), h)
        return self.head(h + self.last(h))


def add_in_place(f, h):
    f += h
    return f


# What the unit hands on, of its output f and input h; and what the net makes of it.
SAME = {
    "tensor": (lambda f, h: f, lambda f, h: f + h),
    "tuple": (lambda f, h: (f, h.argmax(-1)), lambda f, h: f[0] + h),
    "tuple that begins with whole numbers": (lambda f, h: (h.argmax(-1), f), lambda f, h: f[1] + h),
    "mapping": (lambda f, h: {"index": h.argmax(-1), "f": [f]}, lambda f, h: f["f"][0] + h),
    "dataclass": (lambda f, h: Output(h.argmax(-1), f), lambda f, h: f.hidden + h),
    "view": (lambda f, h: f.view(-1, 2, WIDTH // 2), lambda f, h: f.flatten(1) + h),
    "changed in place": (lambda f, h: f.clone(), add_in_place),
}
MODULES = {
    "foreign": Foreign,
    **{k.__name__: (lambda net, k=k: k(net(), TASK)) for k in (BP, FA, DFA, BlockFA)},
}


def callbacks(module):
    prefix = "model." if module == "foreign" else "net."
    options = {"n_samples": 7, "figure": False}
    units = {"units": [f"{prefix}{name}" for name in Net.credit_units]}
    kinds = (ResidualNorms, GradientNorms, ReferenceValidity, ScaleStability)
    return [*(kind(**options, **units) for kind in kinds), CreditAlignment(**options)]


def run(module, folder, *net):
    trained = seeded(lambda: MODULES[module](lambda: Net(*net)))
    watching = callbacks(module)
    fit(folder, trained, *watching, logger=False, max_epochs=1, loaders=(train_loader(), None))
    return trained, [row["values"] for callback in watching for row in callback.history.rows]


@pytest.mark.few(10)
@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("module", MODULES)
def test_containers_and_views_are_what_their_tensor_is(module, name, tmp_path):
    trained, rows = run(module, tmp_path / "one", *SAME[name])
    expected, expected_rows = run(module, tmp_path / "two", *SAME["tensor"])
    assert same_state(trained, expected)
    for values, wanted in zip(rows, expected_rows, strict=True):
        if name == "view":  # its shape is not that of its input
            wanted.pop("credit/cosine_input/L01", None)
        assert values == pytest.approx(wanted, nan_ok=True)


def no_grad(f, h):
    with torch.no_grad():
        return f.clone()


WITHOUT_GRADIENT = {
    "detached": lambda f, h: f.detach(),
    "no_grad": no_grad,
}


@pytest.mark.parametrize("hand_on", WITHOUT_GRADIENT.values(), ids=WITHOUT_GRADIENT)
@pytest.mark.parametrize("module", MODULES)
def test_a_unit_without_a_graph_learns_nothing_and_is_measured(module, hand_on, tmp_path):
    trained, rows = run(module, tmp_path, hand_on, lambda f, h: f + h)
    net = trained.model if module == "foreign" else trained.net
    assert net.unit.layer.weight.grad is None
    assert net.last.layer.weight.grad is not None
    updates = {tag: v for tag, v in rows[-1].items() if "/update/" in tag and "unit" in tag}
    assert updates
    assert all(value != value for value in updates.values())
    assert all(value > 0 for row in rows[:4] for value in row.values())  # norms


@pytest.mark.parametrize(
    ("hand_on", "said"),
    [
        (lambda f, h: None, "None"),
        (lambda f, h: f.argmax(-1), r"int64 \(32,\)"),
        (lambda f, h: {"index": f.argmax(-1), "n": 3}, r"\{index: int64 \(32,\).*n: int\}"),
        (lambda f, h: f.to(torch.complex64), r"complex64 \(32, 8\)"),
    ],
    ids=["None", "whole numbers", "mapping of whole numbers", "complex"],
)
@pytest.mark.parametrize("kind", [DFA, BlockFA])
def test_what_no_credit_can_enter_is_refused_with_what_it_is(kind, hand_on, said):
    rule = kind(Net(hand_on, lambda f, h: h), TASK)
    with pytest.raises(
        ValueError, match=f"unit 'unit' returns {said}.*, expected a floating-point"
    ):
        rule.surrogate(tensors(32))


COMPLEX = (lambda f, h: f, lambda f, h: f.abs() + h, torch.complex64)


@pytest.mark.parametrize("module", ["foreign", "BP"])
def test_complex_numbers_are_measured_as_two_real_ones(module, tmp_path):
    trained, rows = run(module, tmp_path, *COMPLEX)
    assert len(rows) == 10
    last = {tag: value for row in rows[1::2] for tag, value in row.items()}
    # By hand, at the unit's output: real and imaginary part are two features.
    net, (x, y) = trained.model if module == "foreign" else trained.net, tensors(32)
    x, y = x[:7], y[:7]
    h = net.embed(x)
    f = torch.view_as_real(net.unit(h).detach()).requires_grad_()
    stream = torch.view_as_complex(f).abs() + h
    loss = F.cross_entropy(net.head(stream + net.last(stream)), y)
    (g,) = torch.autograd.grad(loss, f)
    point = Point("model.unit" if module == "foreign" else "net.unit", "output")
    value, gradient = Chunk(trained, (x, y), 7).gradients([point])[point]
    torch.testing.assert_close(torch.view_as_real(value), f.detach())
    torch.testing.assert_close(torch.view_as_real(gradient), g)
    assert last["reference/cosine/L01"] == pytest.approx(1, abs=1e-5)
    update = next(value for tag, value in last.items() if tag.endswith("unit.layer.weight"))
    assert update == pytest.approx(1, abs=1e-5)
    if module == "BP":
        assert last["credit/cosine/L01"] == pytest.approx(1, abs=1e-5)


def test_a_frozen_complex_front_takes_part_in_the_exact_gradient():
    rule, point = seeded(lambda: BP(Net(*COMPLEX), TASK)), Point("net.embed", "output")
    chunk = Chunk(rule, tensors(32))
    expected = chunk.gradients([point])[point][1]
    rule.net.embed.requires_grad_(False)
    rule.net.unit.requires_grad_(False)
    assert torch.equal(chunk.gradients([point])[point][1], expected)
    assert not any(p.requires_grad for p in rule.net.unit.parameters())
