"""What an editor, ``help()`` and the command line show of public classes and functions."""

import inspect
from dataclasses import is_dataclass
from importlib import import_module
from pkgutil import walk_packages

import pytest
import torch

import lit_credit
from lit_credit.callbacks import Diagnostic
from lit_credit.cli.class_rules import exported_classes
from lit_credit.datamodules.tensor_datamodule import TensorDataModule
from lit_credit.inspect.batch_loss import batch_loss
from lit_credit.models import MLP
from lit_credit.rules import BP, DFA, FA, BlockFA, CreditRule, FrozenUnits, LocalRule
from lit_credit.tasks import Classification
from tests.callbacks.test_contract import SCHEDULED
from tests.callbacks.test_contract import make as make_diagnostic

OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
ROOMS = {"functional", "inspect", "runs", "plotting", "testing"}  # beside those YAML names
OPEN_WITH_REASON = {
    "CreditRule.forward": "the inputs of the net, whatever they are",
    "LocalLosses.forward": "the same",
    "ForwardForward.forward": "the same",
    "Ensemble.forward": "the inputs of the members' net, whatever they are",
    "SeparateHeads.by_head": "as many tensors as there are heads",
    "FeedbackLayer": "a mixin of torch's layers, whose arguments it leaves alone",
}

OF_SEVERAL_PASSES = [
    *("InferenceRule", "PEPITA", "PredictiveCoding", "ForwardGradient", "TargetPropagation"),
]
OTHERWISE = {
    # The gradient of other data does not vanish with that of the training data.
    "GradientNoise": {"probe"},
    # B learns; it cannot take signs of W, or be drawn again.
    "KolenPollack": {"feedback_sign", "redraw"},
    "WeightMirror": {"feedback_sign", "redraw"},
    # B learns from the outputs of the units and from the error at the output; it starts at 0.
    "DirectKolenPollack": {"recompute", "feedback", "feedback_scale", "signal", "error_at"},
    # Its losses need the outputs of the units.
    "LocalLosses": {"recompute"},
    # They run the net several times in a step, with other values in it.
    **{name: {"recompute", "compile"} for name in OF_SEVERAL_PASSES},
    # It runs the net three times in a step, and its losses need the outputs of the units.
    "ForwardForward": {"recompute", "compile"},
    # B learns the Jacobian of the output.
    "FDFA": {"shared_feedback", "rank", "signal", "error_at"},
}
"""Arguments of a base class that are left out, or have another default."""


def public():
    """All classes that a configuration may name, and what other packages export, by name."""
    found = {cls.__name__: cls for cls in exported_classes().values()}
    for package in walk_packages(lit_credit.__path__, "lit_credit."):
        if package.ispkg and package.name.split(".")[1] in ROOMS:
            module = import_module(package.name)
            found |= {name: getattr(module, name) for name in getattr(module, "__all__", ())}
    return {
        name: thing
        for name, thing in found.items()
        if (inspect.isclass(thing) or inspect.isroutine(thing))
        and not getattr(thing, "_is_protocol", False)
    }


PUBLIC = public()
CLASSES = {name: kind for name, kind in PUBLIC.items() if inspect.isclass(kind)}
DIAGNOSTICS = [kind for kind in CLASSES.values() if issubclass(kind, Diagnostic)]
FAMILIES = [k for k in CLASSES.values() if issubclass(k, CreditRule | Diagnostic)]


def parameters(thing):
    return inspect.signature(thing).parameters


def callables():
    """Public functions, classes, and the public methods that they define."""
    for name, thing in PUBLIC.items():
        yield name, thing
        own = vars(thing) if inspect.isclass(thing) else ()
        methods = [m for m in own if not m.startswith("_") and callable(getattr(thing, m))]
        yield from ((f"{name}.{method}", getattr(thing, method)) for method in methods)


def test_no_public_callable_hides_its_arguments():
    found = {
        name
        for name, thing in callables()
        if any(p.kind in OPEN for p in parameters(thing).values())
    }
    assert found == OPEN_WITH_REASON.keys()
    assert len(PUBLIC) > 150


@pytest.mark.parametrize("kind", FAMILIES, ids=lambda kind: kind.__name__)
def test_arguments_of_a_base_class_are_the_same_everywhere(kind):
    own = parameters(kind)
    for base in kind.__mro__:
        if issubclass(base, CreditRule | Diagnostic):
            for name, shared in parameters(base).items():
                if name not in OTHERWISE.get(kind.__name__, ()):
                    assert own[name] == shared, f"{name} of {base.__name__}"


@pytest.mark.parametrize("kind", DIAGNOSTICS, ids=lambda kind: kind.__name__)
def test_arguments_of_a_diagnostic_are_keyword_only(kind):
    assert {p.kind for p in parameters(kind).values()} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("name", CLASSES)
def test_the_docstring_describes_every_argument(name):
    kind = CLASSES[name]
    if issubclass(kind, tuple) or name in OPEN_WITH_REASON:  # fields are described as attributes
        return
    text = inspect.getdoc(kind)
    if is_dataclass(kind) and "Args:" not in text:  # so are these
        return
    assert [p for p in parameters(kind) if f"\n    {p}: " not in text] == []


@pytest.mark.parametrize("base", [CreditRule, Diagnostic, TensorDataModule])
def test_a_class_of_a_users_own_is_described_too(base):
    own = next(iter(parameters(base)))

    class Own(base):
        """Of a project.

        Args:
            extra: its own.
        """

        def __init__(self, extra, **kwargs):
            super().__init__(**kwargs)

    assert inspect.getdoc(Own).endswith("Args:\n    extra: its own.")

    class Full(base):
        """Of a project."""

    assert f"\n    {own}: " in inspect.getdoc(Full)


GIVEN = {
    "n_samples": 7,
    "chunk_size": 3,
    "units": ["blocks.*"],
    "loss": batch_loss,
    "probe": "train",
    "mode": "train",
    "every_n_steps": 5,
    "every_n_epochs": 4,
    "figure": False,
}


@pytest.mark.parametrize("kind", SCHEDULED)
@pytest.mark.parametrize("argument", GIVEN)
def test_a_diagnostic_hands_every_argument_on(kind, argument):
    if argument in parameters(kind):
        made = make_diagnostic(kind, **{argument: GIVEN[argument]})
        assert getattr(made, "source" if argument == "probe" else argument) == GIVEN[argument]


RULE_ARGUMENTS = {
    "lr_interval": "step",
    "clip_norm": 2.0,
    "clip_per_unit": {"layers.0": 3.0},
    "units": ["layers.0"],
    "readout": ["head"],
    "updates_per_step": 4,
    "normalize_credit": True,
    "stray": "freeze",
    "recompute": True,
}


@pytest.mark.parametrize("kind", [BP, FA, DFA, BlockFA, FrozenUnits])
def test_a_rule_hands_every_argument_on(kind):
    given = {n: value for n, value in RULE_ARGUMENTS.items() if n in parameters(kind)}
    net, task = MLP(4, [3], 2), Classification(2)
    rule = kind(net, task, torch.optim.SGD, torch.optim.lr_scheduler.ConstantLR, **given)
    assert (rule.net, rule.task) == (net, task)
    made = rule.make_optimizer, rule.make_scheduler
    assert made == (torch.optim.SGD, torch.optim.lr_scheduler.ConstantLR)
    # What `load_from_checkpoint` builds the rule from has all arguments that are plain data.
    assert {name: rule.hparams[name] for name in given} == given
    missing = parameters(kind).keys() - {*rule.hparams, "net", "task", "optimizer", "lr_scheduler"}
    assert not missing
    assert rule.clip_norm == 2.0
    assert (rule.units, rule.readout, rule.updates_per_step) == (["layers.0"], ["head"], 4)
    assert rule.lr_interval == "step"
    assert rule.clip_norms == {"layers.0": 3.0}
    if isinstance(rule, LocalRule):
        assert (rule.normalize_credit, rule.stray, rule.recompute) == (True, "freeze", True)
