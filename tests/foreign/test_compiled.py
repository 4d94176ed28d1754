"""Modules that torch.compile has touched: measured eagerly, trained compiled."""

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch._dynamo.utils import counters
from torch.nn import functional as F

from lit_credit.callbacks import HeadAttribution, ResidualNorms
from lit_credit.rules import DFA, FA
from lit_credit.utils.compiled import clean_name, named_submodules
from tests import support
from tests.support import Validated
from tests.support.watched import UNITS, diagnostics, fit, same_values, watched

# The other backends differ in what they make of a graph, not in when one is asked for.
COMPILE = {"backend": "eager"}
# Dynamo looks at an attribute of the tensor between two parts, and torch warns of that.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


class Wrapped(Validated):
    def __init__(self):
        super().__init__()
        self.model = torch.compile(self.model, **COMPILE)


class Parts(Validated):
    """By region, as big nets are."""

    def __init__(self):
        super().__init__()
        model = self.model
        model.embed[3] = torch.compile(model.embed[3], **COMPILE)
        for index, block in enumerate(model.blocks):
            model.blocks[index] = torch.compile(block, **COMPILE)


class InPlace(Validated):
    def __init__(self):
        super().__init__()
        self.model.compile(**COMPILE)


class Bare(Validated):
    """Without Python in the training step, which makes a graph of each line."""

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def on_train_epoch_end(self):
        pass


def whole():
    return torch.compile(Bare(), **COMPILE)


def ruled(kind):
    def make():
        rule = support.rule(kind)
        rule.net.compile(**COMPILE)
        return rule

    return make


def wrapped(kind):
    return lambda: support.rule(kind, lambda: torch.compile(support.NoisyNet(), **COMPILE))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What the uncompiled module gives."""
    found = {}
    for make in (Validated, Bare, FA):
        is_rule = make is FA
        callbacks = diagnostics(units=None if is_rule else UNITS, every_n_steps=2)
        module = support.rule(make) if is_rule else make()
        fit(tmp_path_factory.mktemp("plain"), module, *callbacks)
        found[make] = callbacks
    return found


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("make", "twin"),
    [
        (Wrapped, Validated),
        (Parts, Validated),
        (InPlace, Validated),
        (whole, Bare),
        (wrapped(FA), FA),
    ],
)
def test_a_compiled_module_is_measured_as_if_it_were_not(make, twin, plain, tmp_path):
    units = None if twin is FA else UNITS
    counted = []

    callbacks = diagnostics(units=units, every_n_steps=2)
    states = []
    for given in ((), callbacks):
        torch._dynamo.reset()
        counters.clear()
        states.append(fit(tmp_path, make(), *given).lightning_module)
        counted.append((dict(counters["stats"]), sum(counters["graph_break"].values())))
    assert support.same_state(*states)
    # No graph more, and there are some: training is compiled before and after a measurement.
    assert counted[0] == counted[1]
    assert counted[0][0]["unique_graphs"] >= 1
    # Under names without a trace of torch.compile.
    assert same_values(plain[twin], callbacks)


def test_names_and_patterns_know_nothing_of_the_wrapper():
    module = Parts()
    names = [name for name, _ in named_submodules(module)]
    assert names == [name for name, _ in Validated().named_modules()]
    assert dict(named_submodules(module))["model.embed.3"] is module.model.embed[3]._orig_mod
    assert clean_name("_orig_mod.net._orig_mod.head") == "net.head"


def test_head_weights_are_read_through_the_wrapper(tmp_path):
    def make(compiled):
        module = Validated(support.SymbolNet)
        if compiled:
            embed = module.model.embed
            embed[3].attention = torch.compile(embed[3].attention, **COMPILE)
            embed[3] = torch.compile(embed[3], **COMPILE)
        return module

    plain, seen = (
        watched(tmp_path, lambda c=compiled: make(c), [HeadAttribution(n_samples=7, figure=False)])
        for compiled in (False, True)
    )
    assert same_values(plain, seen)


@pytest.mark.parametrize("late", [ruled(DFA), lambda: torch.compile(support.rule(DFA), **COMPILE)])
def test_a_rule_that_cuts_the_graph_refuses_what_was_compiled_late(late, tmp_path):
    with pytest.raises(ValueError, match=r"is compiled, but DFA cuts the graph"):
        fit(tmp_path, late())


def test_an_old_torch_refuses_a_compiled_module(tmp_path, monkeypatch):
    monkeypatch.delattr(torch.compiler, "set_stance")
    callback = ResidualNorms(units=UNITS, n_samples=7, figure=False)
    for make, name in ((Wrapped, "'model'"), (InPlace, "'model'"), (whole, "'Bare'")):
        with pytest.raises(MisconfigurationException, match=rf"{name} is compiled.*torch 2\.6"):
            fit(tmp_path, make(), callback)
    fit(tmp_path, Validated(), callback)
