"""Nets that checkpoint their activations, in training under a rule and where they are looked at."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lit_credit.callbacks import CreditAlignment, GradientNorms, ReferenceValidity
from lit_credit.inspect.activation_checkpoints import checkpoints, is_second_run
from lit_credit.inspect.state.guard import guarded
from lit_credit.rules import BP, DFA, FA, BlockFA
from lit_credit.tasks import Classification
from tests.support import CLASSES, FEATURES, WIDTH, Foreign, fit, same_state, seeded, train_loader


class Block(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.a, self.act, self.b = nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH)
        self.reentrant = reentrant

    def inner(self, h):
        return self.b(self.act(self.a(h)))

    def forward(self, h):
        if self.reentrant is None:
            return self.inner(h)
        return checkpoint(self.inner, h, use_reentrant=self.reentrant)


class Net(nn.Module):
    credit_units = ("embed", "blocks.0", "blocks.1")
    readout = ("head",)

    def __init__(self, around=None, inside=None):
        super().__init__()
        self.embed, self.head = nn.Linear(FEATURES, WIDTH), Block(inside)
        self.blocks = nn.ModuleList(Block(inside) for _ in range(2))
        self.out = nn.Linear(WIDTH, CLASSES)
        self.around = around

    def forward(self, x):
        h = self.embed(x)
        for block in self.blocks:
            # More than the unit lies in it, and is saved for the backward pass.
            def layer(h, block=block):
                return h + F.silu(block(h)) * 2

            h = layer(h) if self.around is None else checkpoint(layer, h, use_reentrant=self.around)
        return self.out(self.head(h))


READOUT = {"readout": ["head", "out"]}
MODULES = {
    "foreign": Foreign,
    "BP": lambda net: BP(net(), Classification(CLASSES), **READOUT),
    "FA": lambda net: FA(net(), Classification(CLASSES), **READOUT),
    "DFA": lambda net: DFA(net(), Classification(CLASSES), **READOUT),
    "DFA recomputes": lambda net: DFA(net(), Classification(CLASSES), recompute=True, **READOUT),
    "BlockFA": lambda net: BlockFA(net(), Classification(CLASSES), **READOUT),
}
NETS = {
    "reentrant around units": {"around": True},
    "around units": {"around": False},
    "reentrant inside of units": {"inside": True},
    "inside of units": {"inside": False},
    "both": {"around": True, "inside": True},
}


def run(module, net, folder):
    trained = seeded(lambda: MODULES[module](lambda: Net(**net)))
    prefix = "model." if module == "foreign" else ""
    units = [f"{prefix}{name}" for name in ("embed", "blocks.0", "blocks.1.a+{}blocks.1.act")]
    units[-1] = units[-1].format(prefix)
    callbacks = [
        GradientNorms(units=units, n_samples=7, figure=False),
        GradientNorms(units=[f"{prefix}blocks.*.a"], n_samples=7, figure=False),
        ReferenceValidity(units=units, n_samples=7, figure=False),
        CreditAlignment(n_samples=7, figure=False),
    ]
    fit(folder, trained, *callbacks, logger=False, max_epochs=2, loaders=(train_loader(), None))
    return trained, [row["values"] for callback in callbacks for row in callback.history.rows]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return {module: run(module, {}, tmp_path_factory.mktemp("plain")) for module in MODULES}


@pytest.mark.few(10)
@pytest.mark.filterwarnings("ignore:.*the credit of .* enters in front of:UserWarning")
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("module", MODULES)
def test_training_and_measurements_are_those_without_checkpoints(module, net, plain, tmp_path):
    trained, rows = run(module, NETS[net], tmp_path)
    expected, expected_rows = plain[module]
    assert same_state(trained, expected)
    assert len(rows) == 12
    for values, wanted in zip(rows, expected_rows, strict=True):
        assert values == pytest.approx(wanted, rel=1e-5, abs=1e-7, nan_ok=True)


def test_what_learns_nothing_in_training_has_no_gradient():
    layer, x = nn.Linear(3, 3), torch.ones(2, 3)
    with guarded(layer):
        assert not checkpoint(layer, x, use_reentrant=True).requires_grad
        assert checkpoint(layer, x, use_reentrant=False).requires_grad
        assert checkpoint(layer, x.requires_grad_(), use_reentrant=True).requires_grad
    with checkpoints("kept"):
        assert checkpoint(layer, torch.ones(2, 3), use_reentrant=True).requires_grad


@pytest.mark.parametrize("mode", ["direct", "kept", "probed"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_second_run_is_made_where_checkpoints_are_kept(mode, reentrant):
    runs = []

    def inner(x):
        runs.append(is_second_run())
        return x.sin()

    def outer(x):
        return checkpoint(inner, x.cos(), use_reentrant=reentrant).exp()

    x = torch.ones(2, requires_grad=True)
    with checkpoints(mode):
        y = checkpoint(outer, x, use_reentrant=reentrant)
    (found,) = torch.autograd.grad(y.sum(), x)
    (expected,) = torch.autograd.grad(x.cos().sin().exp().sum(), x)
    torch.testing.assert_close(found, expected)
    assert any(runs) == (mode != "direct")
    before = torch.utils.checkpoint.CheckpointFunction
    assert issubclass(before, torch.autograd.Function)
