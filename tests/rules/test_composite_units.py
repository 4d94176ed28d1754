"""Units of several submodules: what all that names units makes of them, and what is refused."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_credit.callbacks import CreditAlignment, FiniteGuard, GradientNorms, ResidualNorms
from lit_credit.feedback.credits import Credits
from lit_credit.inspect.capture import Point, capture
from lit_credit.models import MLP, ResidualMLP
from lit_credit.rules import BP, DFA, FA, BlockFA, FrozenUnits
from lit_credit.rules.local import LocalRule
from lit_credit.tasks import Classification
from tests.support import gradients, images, loader, quiet_trainer, seeded

TASK = Classification(5)
JOINED = {"units": ["fc1+relu", "fc2+relu"], "readout": ["head"]}
ARROWS = {"units": ["fc*->"], "readout": ["head"]}


class Flat(nn.Module):
    """A flat net with one activation for both layers."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.relu = nn.Linear(20, 12), nn.Linear(12, 9), nn.ReLU()
        self.head = nn.Linear(9, 5)

    def forward(self, x):
        return self.head(self.relu(self.fc2(self.relu(self.fc1(x)))))


class Around(Flat):
    """The input of the second layer reaches the head around it."""

    def forward(self, x):
        h = self.relu(self.fc1(x))
        return self.head(h[:, :9] + self.relu(self.fc2(h)))


class Apart(Flat):
    """What runs after the first layer does not come from it."""

    def forward(self, x):
        z, side = self.fc1(x), self.relu(x[:, :9])
        return self.head(self.relu(self.fc2(torch.tanh(z))) + side)


class Parallel(Flat):
    """Two layers wait for one activation."""

    def forward(self, x):
        a, b = self.fc1(x), self.fc2(x[:, :12])
        return self.head(self.relu(a)[:, :9] + self.relu(b))


@pytest.mark.parametrize("names", [JOINED, ARROWS], ids=str)
@pytest.mark.parametrize("kind", [DFA, BlockFA])
def test_names_reach_everything_that_names_units(kind, names, tmp_path):
    rule = seeded(lambda: kind(Flat(), TASK, clip_per_unit={"fc1": 0.01, "fc2*": 0.02}, **names))
    assert [group["name"] for group in rule.configure_optimizers().param_groups] == [
        "units",
        "readout",
    ]
    diagnostics = [
        kind_(every_n_steps=1, n_samples=8, figure=False)
        for kind_ in (CreditAlignment, ResidualNorms, GradientNorms)
    ]
    trainer = quiet_trainer(
        max_epochs=1,
        default_root_dir=tmp_path,
        limit_val_batches=0,
        callbacks=[*diagnostics, FiniteGuard()],
    )
    trainer.fit(rule, loader())
    cosines, norms, gradient_norms = (
        callback.history.rows[-1]["values"] for callback in diagnostics
    )
    assert {"credit/cosine/L00", "credit/cosine/L01"} <= cosines.keys()
    assert not any(math.isnan(cosines[f"credit/cosine/L0{i}"]) for i in (0, 1))
    assert len([n for n in norms if n.startswith("residual/norm/L")]) == 3
    assert len([n for n in gradient_norms if n.startswith("gradient/norm/L")]) == 3
    # The clip is that of the unit's own parameters.
    own = gradients(rule, images()).values()
    for parameter, gradient in zip(rule.net.parameters(), own, strict=True):
        parameter.grad = 100 * gradient
    rule.on_before_optimizer_step(None)
    fc1, fc2 = (
        torch.stack([p.grad.norm() for p in layer.parameters()]).norm()
        for layer in (rule.net.fc1, rule.net.fc2)
    )
    torch.testing.assert_close(
        torch.stack([fc1, fc2]), torch.tensor([0.01, 0.02]), rtol=1e-3, atol=0
    )
    # A checkpoint's matrices have the names that they have without joined units.
    other = kind(Flat(), TASK, **names)
    other.load_state_dict(rule.state_dict())
    batch = images()
    for name, credit in rule.credit(batch).items():
        assert torch.equal(other.credit(batch)[name], credit)


def test_credit_is_compared_with_the_gradient_where_it_enters():
    """Where the matrix of the last unit is the readout's weight, its credit is the gradient."""
    for names in (JOINED, ARROWS):
        rule = seeded(lambda names=names: DFA(Flat(), TASK, **names))
        batch = images()
        rule.credit(batch)
        rule.feedback.matrix[-9:] = rule.net.head.weight.detach().T
        pair = rule.feedback_matrices()[rule.credit_units[-1]]
        assert torch.equal(pair.feedback, pair.weight)
        last = rule.credit_units[-1]
        with capture(rule, [Point(last, "output"), Point(last, "input")]) as values:
            loss = rule.batch_loss(batch)
        output, entered = values[Point(last, "output")], values[Point(last, "input")]
        assert torch.equal(entered, rule.net.relu(rule.net.fc1(batch[0])))
        assert torch.equal(output, rule.net.relu(rule.net.fc2(entered)))
        (exact,) = torch.autograd.grad(loss, output)
        torch.testing.assert_close(rule.credit(batch)[last], exact)


def test_a_shared_matrix_is_named_by_the_first_member():
    net = nn.Sequential(
        nn.Linear(20, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 5)
    )
    for units, shared in (
        (["0+1", "2+3"], {"0": "2"}),
        (["0->", "2->"], {"0->": "2->4"}),
        (["0+1", "2->"], {"0+1": "2->"}),
    ):
        rule = DFA(copy.deepcopy(net), TASK, units=units, readout=["4"], shared_feedback=shared)
        first, second = rule.credit(images()).values()
        assert torch.equal(first, second)


def test_one_activation_registered_twice_may_be_joined_by_either_name():
    act = nn.Tanh()
    net = nn.Sequential(nn.Linear(20, 12), act, nn.Linear(12, 9), act, nn.Linear(9, 5))
    rule = DFA(net, TASK, units=["0+1", "2+3"], readout=["4"])
    assert [tuple(credit.shape) for credit in rule.credit(images(4)).values()] == [(4, 12), (4, 9)]


def test_frozen_units_freeze_every_member():
    rule = FrozenUnits(Flat(), TASK, **JOINED)
    learning = [name for name, p in rule.net.named_parameters() if p.requires_grad]
    assert learning == ["head.weight", "head.bias"]


def test_a_net_may_declare_joined_units():
    class Declaring(Flat):
        credit_units = ("fc*+relu",)
        readout = ("head",)

    assert DFA(Declaring(), TASK).units == ["fc1+relu", "fc2+relu"]


def test_the_readout_learns_as_by_backpropagation_and_the_units_do_not():
    rule, exact = (seeded(lambda kind=kind: kind(Flat(), TASK, **ARROWS)) for kind in (DFA, BP))
    own, true = gradients(rule, images()), gradients(exact, images())
    for name, gradient in own.items():
        close = torch.allclose(gradient, true[name], rtol=1e-5, atol=1e-8)
        assert close == name.startswith("head")


@pytest.mark.parametrize(
    ("net", "arguments", "message"),
    [
        (Around, ARROWS, r"unit 'fc2->head' depends on tensors inside of unit 'fc1->fc2'"),
        (Apart, {**JOINED, "units": ["fc1+relu", "fc2->"]}, r"does not depend on 'fc1'"),
        (Parallel, JOINED, r"'fc1\+relu' and 'fc2\+relu' both wait"),
        (Flat, {**JOINED, "units": ["fc2+fc1"]}, r"units fc2\+fc1.*did not run.*'fc1->'"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_units_that_do_not_lie_in_a_row_are_refused(net, arguments, message):
    with pytest.raises(ValueError, match=message):
        DFA(net(), TASK, **arguments).surrogate(images())


def test_around_is_taken_where_the_units_hand_on_nothing_but_their_outputs():
    rule = DFA(Around(), TASK, units=["fc1+relu", "fc2+relu"], readout=["head"])
    rule.surrogate(images())[1].backward()
    assert all(p.grad.abs().sum() > 0 for p in rule.net.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": ["fc1+", "fc2"]}, r"'fc1\+' has an empty part"),
        ({"units": ["fc*+h*"]}, r"unequally many submodules: 'fc\*' fc1, fc2; 'h\*' head"),
        ({"units": ["fc1->nix"]}, r"'nix' matches nothing"),
        ({"units": ["fc1->"], "readout": []}, r"nothing is known to follow"),
        ({"units": ["fc1+fc2", "fc2->"], "readout": ["head"]}, r"must be disjoint"),
        ({"units": ["fc*->"], "readout": ["fc2+head"]}, r"`readout`: 'fc2\+head' joins"),
        ({**ARROWS, "clip_per_unit": {"fc3": 1.0}}, r"'fc3' matches nothing.*fc1->fc2"),
        ({"units": ["relu"], "readout": ["head"]}, r"Units relu have no parameters.*'fc1\+relu'"),
    ],
    ids=str,
)
def test_wrong_names_are_refused_with_the_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        DFA(Flat(), TASK, **arguments)


# A unit in front of its activation


def warnings_of(make, batch=None):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rule = make()
        for _ in range(3 if batch is not None else 0):
            rule.surrogate(batch)
    return [str(warning.message) for warning in caught if "in front of" in str(warning.message)]


def normed():
    return nn.Sequential(
        nn.Linear(20, 12), nn.LayerNorm(12), nn.GELU(), nn.Dropout(), nn.Linear(12, 5)
    )


@pytest.mark.parametrize(
    ("net", "units", "remedy"),
    [
        (normed, ["0+1"], "'0+1+2'"),
        (normed, ["0", "1"], "'0+1+2'"),
        (lambda: nn.Sequential(normed()[:2], *normed()[2:]), ["0"], "'0+1'"),
        (Flat, ["fc1+fc2"], "'fc1+fc2+relu'"),
    ],
)
def test_an_activation_that_is_a_submodule_is_seen_at_once(net, units, remedy):
    net = net()
    readout = [list(dict(net.named_children()))[-1]]
    (text,) = warnings_of(lambda: DFA(net, TASK, units=units, readout=readout))
    assert remedy in text
    units = [remedy.strip("'")]
    assert not warnings_of(lambda: DFA(net, TASK, units=units, readout=readout))


def test_an_activation_that_is_a_function_is_seen_at_the_first_batch_and_once():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc, self.head = nn.Conv2d(1, 3, 3), nn.Linear(12, 9), nn.Linear(9, 5)

        def forward(self, x):
            x = F.relu(F.max_pool2d(self.conv(x), 4)).flatten(1)
            return self.head(torch.sigmoid(self.fc(x)))

    batch = torch.randn(4, 1, 10, 10), torch.arange(4)
    bare = {"units": ["conv", "fc"], "readout": ["head"]}
    (text,) = warnings_of(lambda: DFA(Functional(), TASK, **bare), batch)
    assert "'conv', 'fc' enters in front of relu, sigmoid" in text
    assert "'conv->', 'fc->'" in text
    arrows = {"units": ["conv->", "fc->"], "readout": ["head"]}
    assert not warnings_of(lambda: DFA(Functional(), TASK, **arrows), batch)
    for kind in (BP, FA):
        assert not warnings_of(lambda kind=kind: kind(Functional(), TASK, **bare), batch)


@pytest.mark.parametrize(
    ("activation", "seen"),
    [
        (lambda z: z**2, "pow"),
        (lambda z: z * z, "mul"),
        (lambda z: z * (z > 0), "mul"),
        (lambda z: torch.maximum(z, torch.zeros(())), "maximum"),
        (lambda z: torch.max(z, 0.1 * z), "max"),
        (lambda z: torch.where(z > 0, z, 0.1 * z), "where"),
        (lambda z: z.masked_fill(z < 0, 0.0), "masked_fill"),
        (lambda z: torch.exp(-z), "exp"),
        (lambda z: torch.erf(z), "erf"),
        (lambda z: z.atan(), "atan"),
        (lambda z: F.softmax(z, -1), "softmax"),
        (lambda z: F.glu(torch.cat([z, z], -1)), "glu"),
        (lambda z: torch.cat([z[:, :3].relu(), z[:, 3:]], -1), "relu"),
        (lambda z: 2 * F.relu(z / 2), "relu"),
        (lambda z: z.clip(0, 1), "clip"),
        (lambda z: 2 * z - 1, None),
        (lambda z: z.view(-1, 3, 4).sum(1).repeat(1, 3), None),
        (lambda z: z + torch.randn(12).relu(), None),
        (lambda z: F.layer_norm(z, (12,)), None),
    ],
)
def test_activations_of_every_making_are_seen(activation, seen):
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.head = nn.Linear(20, 12), nn.Linear(12, 5)

        def forward(self, x):
            return self.head(activation(self.fc(x.flatten(1))))

    batch = torch.randn(4, 20), torch.arange(4)
    found = warnings_of(lambda: DFA(Functional(), TASK, units=["fc"], readout=["head"]), batch)
    assert [f"in front of {seen}," in text for text in found] == ([] if seen is None else [True])


def test_nets_of_ours_and_units_without_activation_are_not_warned_of():
    linear = nn.Sequential(nn.Linear(20, 12), nn.Linear(12, 5))
    for net, names in (
        (MLP(in_features=20, hidden=[12, 12], num_classes=5), {}),
        (ResidualMLP(20, num_classes=5), {}),
        (linear, {"units": ["0"], "readout": ["1"]}),
    ):
        assert not warnings_of(lambda net=net, names=names: DFA(net, TASK, **names), images(8))


# `normalize_credit` in a rule of one's own


class OwnRule(LocalRule):
    """Every entry of the n-th sample's credit is n + 1; knows nothing of `normalize_credit`."""

    def send(self, error, shapes, scale, batch):
        return Credits(
            lambda name: (
                torch.arange(1.0, len(error) + 1)
                .view(-1, *[1] * (len(shapes[name]) - 1))
                .expand(shapes[name])
                * scale
            )
        )


@pytest.mark.parametrize(
    ("unit", "shape"),
    [
        (nn.Linear(12, 12), (4, 12)),
        (nn.Linear(12, 12), (4, 3, 12)),
        (nn.Conv2d(12, 12, 1), (4, 12, 3, 3)),
    ],
    ids=["vectors", "positions", "feature maps"],
)
def test_normalize_credit_works_in_a_rule_of_ones_own(unit, shape):
    width = torch.Size(shape[1:]).numel()
    net = nn.Sequential(unit, nn.Flatten(), nn.Linear(width, 5))
    batch = torch.randn(shape, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    names = {"units": ["0"], "readout": ["2"]}
    (plain,) = OwnRule(net, TASK, **names).credit(batch).values()
    assert plain.flatten(1)[:, 0].tolist() == [1, 2, 3, 4]
    rule = OwnRule(net, TASK, normalize_credit=True, **names)
    (credit,) = rule.credit(batch).values()
    rows = 12 if len(shape) == 3 else 4  # each position is a row
    torch.testing.assert_close(credit, torch.full(shape, 1 / rows), rtol=1e-5, atol=0)
    expected = torch.autograd.grad((unit(batch[0]) * credit).sum(), unit.weight)[0]
    torch.testing.assert_close(gradients(rule, batch)["0.weight"], expected)
    # The scale of the loss, as a GradScaler's, multiplies the update, and the credit by it.
    scaled = torch.autograd.grad(64 * rule.surrogate(batch)[1], unit.weight)[0]
    torch.testing.assert_close(scaled, 64 * expected)
