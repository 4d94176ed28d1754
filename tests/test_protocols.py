"""Every name that one part of lit_credit asks of another is written down, and means one thing."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import WandbLogger
from torch import nn

from lit_credit import protocols
from lit_credit.datamodules import CharText
from lit_credit.inspect.plain_module import PlainModule
from lit_credit.models import EnergyMLP, Ensemble
from lit_credit.protocols import (
    DataModuleProtocol,
    FeedbackPairProtocol,
    LayerProtocol,
    LoggerProtocol,
    ModuleProtocol,
    NetProtocol,
    RuleProtocol,
    TaskProtocol,
    asked,
    is_rule,
    method,
    offers,
)
from lit_credit.rules import BP, DFA, FA, BlockFA, CreditRule, FrozenUnits
from lit_credit.studies.addition import MicroAdder
from lit_credit.studies.ngram import NGram
from lit_credit.tasks import Classification, Task

PAGE = Path("docs/protocols.md")
PROTOCOLS = [getattr(protocols, name) for name in protocols.__all__ if name.endswith("Protocol")]
OTHERS = {
    "python": {"sched_getaffinity"},
    "yaml": {"CSafeLoader", "CSafeDumper"},
    "numpy": {"bit_generator"},
    "arrays of any package": {"item", "ndim", "shape", "size"},
    "torch": {
        *("Buffer", "batch_sampler", "batch_size", "dataset", "groups", "last_epoch"),
        *("parametrizations", "running_mean", "sampler", "set_epoch", "set_stance", "variable"),
        "weight",
    },
    "optimizers with modes, as schedulefree's": {"eval", "train"},
    "Lightning": {
        *("ckpt_path", "datamodule", "dirpath", "experiment", "lightning_module", "log_dict"),
        *("log_dir", "loggers", "lr_scheduler_configs", "monitor", "optimizers", "scaler"),
        *("should_stop", "strict", "strict_loading", "trainer"),
    },
    "jsonargparse": {"init_args", "subcommand_parser"},
    "Hugging Face": {
        *("attention_scaling", "config", "inv_freq", "logits", "loss", "rotary_emb", "rotate_half"),
        *("scaling", "use_rope"),
    },
    "TransformerLens": {"attn_scale"},
    "torch from 2.9 on": {"Muon"},
    # Of objects that the file itself makes, or the package testing.
    "the asker": {"compute", "mode", "own_class_rules", "running", "states", "update"},
}


def members(protocol):
    """Its names, each with the function that has its docstring."""
    own = {name: value for name, value in vars(protocol).items() if not name.startswith("_")}
    return {
        name: value.fget if isinstance(value, property) else value for name, value in own.items()
    }


def methods():
    for protocol in PROTOCOLS:
        for name, function in members(protocol).items():
            if not isinstance(vars(protocol)[name], property):
                yield f"{protocol.__name__}.{name}", function


def words(source):
    """Literal public names that a file asks for with getattr or hasattr, except of ``self``."""
    for node in ast.walk(ast.parse(source)):
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if called and node.func.id in ("getattr", "hasattr"):
            thing, name = node.args[:2]
            of_itself = isinstance(thing, ast.Name) and thing.id == "self"
            literal = isinstance(name, ast.Constant) and not name.value.startswith("_")
            if literal and not of_itself:
                yield name.value


def test_the_page_has_the_names_of_the_protocols_and_no_others():
    page = {}
    for part in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        rows = re.findall(r"^\| `(\w+)` \|(.+)\|(.+)\|(.+)\|$", part, flags=re.MULTILINE)
        assert all(cell.strip() for row in rows for cell in row)
        page[part.split("\n")[0]] = [name for name, *_ in rows]
    assert page == {protocol.__name__: list(members(protocol)) for protocol in PROTOCOLS}


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.__name__)
def test_a_docstring_says_who_asks_and_what_happens_without(protocol):
    for name, function in members(protocol).items():
        text = inspect.getdoc(function)
        assert re.fullmatch(r"\S.+\n\n(.*\n)*Asked by: .+\n(.+\n)*Without it: .+(\n.+)*", text), (
            name
        )


def test_the_example_of_the_page_runs():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    names = {}
    exec(code, names)
    assert names["rule"].credit_units == ["net.hidden+net.act"]
    assert names["rule"].readout == ["out"]


def test_every_name_that_is_asked_for_is_written_down():
    """A new name goes into protocols.py and is asked for by `asked`, `method` or `offers`."""
    known = set().union(*OTHERS.values())
    asked_for = set()
    for path in sorted(Path("lit_credit").rglob("*.py")):
        found = set(words(path.read_text()))
        asked_for |= found
        assert found <= known, f"{path} asks for {sorted(found - known)}"
    assert known <= asked_for, f"nobody asks for {sorted(known - asked_for)} any more"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("getattr(net, 'new_word', None)", ["new_word"]),
        ("x = [hasattr(m, 'new_word') for m in net]", ["new_word"]),
        ("getattr(getattr(trainer, 'outer'), 'inner')", ["inner", "outer"]),
        ("getattr(self, 'new_word')", []),
        ("getattr(net, '__doc__'), getattr(net, '_private'), getattr(net, name)", []),
    ],
)
def test_a_new_name_is_seen(source, expected):
    assert list(words(source)) == expected


def test_every_member_is_asked_for():
    trees = [ast.parse(path.read_text()) for path in Path("lit_credit").rglob("*.py")]
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    used = {f"{n.value.id}.{n.attr}" for n in nodes if isinstance(n.value, ast.Name)}
    for protocol in PROTOCOLS:
        if protocol is not FeedbackPairProtocol:  # which a method returns
            assert {f"{protocol.__name__}.{name}" for name in members(protocol)} <= used


OURS = {
    "NetProtocol.parts": MicroAdder.parts,
    "NetProtocol.logits_with": MicroAdder.logits_with,
    "NetProtocol.member_state": Ensemble.member_state,
    "NetProtocol.clip_grad_norm_": Ensemble.clip_grad_norm_,
    "NetProtocol.relax": EnergyMLP.relax,
    "NetProtocol.energy": EnergyMLP.energy,
    "NetProtocol.output_of": EnergyMLP.output_of,
    "ModuleProtocol.batch_loss": CreditRule.batch_loss,
    "ModuleProtocol.run_batch": PlainModule.run_batch,
    "ModuleProtocol.credit": CreditRule.credit,
    "ModuleProtocol.feedback_matrices": CreditRule.feedback_matrices,
    "RuleProtocol.surrogate": CreditRule.surrogate,
    "RuleProtocol.extra_parameters": CreditRule.extra_parameters,
    "TaskProtocol.target": Task.target,
    "DataModuleProtocol.contexts": NGram.contexts,
    "DataModuleProtocol.encode": CharText.encode,
    "DataModuleProtocol.decode": CharText.decode,
    "LoggerProtocol.log_image": WandbLogger.log_image,
    "LayerProtocol.head_weights": None,  # our own attention is read by its names
}


def test_our_methods_take_what_the_protocols_give_them():
    assert OURS.keys() == dict(methods()).keys()
    for name, function in methods():
        if (own := OURS[name]) is not None:
            given = inspect.signature(function).parameters.values()
            positional = [p.name for p in given if p.kind is not p.KEYWORD_ONLY]
            named = {p.name: None for p in given if p.kind is p.KEYWORD_ONLY}
            assert list(inspect.signature(own).parameters)[: len(positional)] == positional, name
            inspect.signature(own).bind(*positional, **named)


def test_it_loads_without_torch_and_lightning():
    code = "import sys, lit_credit.protocols; print({'torch', 'lightning'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


class Net(nn.Sequential):
    credit_units = ("0",)
    readout = ("1",)
    residual_stream = None

    def __init__(self):
        super().__init__(nn.Linear(4, 4), nn.Linear(4, 3))
        self.register_buffer("seeds", torch.arange(2))


def test_asked_tells_none_from_absent():
    assert asked(Net(), NetProtocol.residual_stream, "absent") is None
    assert asked(Net(), NetProtocol.vocab_size, "absent") == "absent"
    assert asked(None, NetProtocol.vocab_size, 3) == 3


def test_names_of_buffers_submodules_and_compiled_modules_are_seen():
    net = Net()
    for seen in (net, torch.compile(net)):
        assert offers(seen, NetProtocol.seeds, NetProtocol.readout)
        assert asked(seen, NetProtocol.seeds, None).tolist() == [0, 1]
    holder = nn.Module()
    holder.rotary = net
    assert asked(holder, LayerProtocol.rotary, None) is net
    assert not offers(net, NetProtocol.seeds, NetProtocol.vocab_size)


def test_a_property_that_fails_is_absent():
    class Broken:
        @property
        def vocab_size(self):
            raise AttributeError("not yet")

    assert asked(Broken(), NetProtocol.vocab_size, 7) == 7
    assert not offers(Broken(), NetProtocol.vocab_size)


def test_method_is_bound_and_callable():
    data = SimpleNamespace(contexts=3, decode="{}".format)
    assert method(data, DataModuleProtocol.contexts) is None
    assert offers(data, DataModuleProtocol.contexts)
    assert method(data, DataModuleProtocol.decode)(5) == "5"
    assert method(None, DataModuleProtocol.decode) is None
    assert method(Classification(3), TaskProtocol.target)([1, 2]) == 2
    assert method(object(), LoggerProtocol.log_image) is None


@pytest.mark.parametrize("kind", [BP, DFA, FA, BlockFA, FrozenUnits])
def test_our_rules_are_rules(kind):
    rule = kind(Net(), Classification(3))
    assert is_rule(rule)
    assert is_rule(torch.compile(rule))
    batch = torch.ones(2, 4), torch.tensor([0, 1])
    loss, scalar = rule.surrogate(batch)
    assert loss.shape == scalar.shape == ()
    absent = object()
    for name in ("exact_credit", "updates_per_step", "lr_interval", "run_configuration"):
        assert asked(rule, vars(RuleProtocol)[name], absent) is not absent


@pytest.mark.parametrize("package", [LightningModule, pytorch_lightning.LightningModule])
def test_foreign_modules_are_rules_if_they_have_a_surrogate(package):
    class Foreign(package):
        """Names that may mean something else."""

        credit_units = updates_per_step = 3
        exact_credit = True

        def credit(self, batch):
            return {}

        def batch_loss(self, batch):
            return torch.zeros(())

    class Rule(Foreign):
        def surrogate(self, batch):
            return self.batch_loss(batch), self.batch_loss(batch)

    class Number(Foreign):
        surrogate = 0.5

    assert not is_rule(Foreign())
    assert not is_rule(Number())
    assert is_rule(Rule())
    assert method(Foreign(), ModuleProtocol.credit)(None) == {}


def test_nothing_else_is_a_rule():
    for thing in (None, Net(), Classification(3), "surrogate", nn.Identity()):
        assert not is_rule(thing)
