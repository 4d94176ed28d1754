"""The contract that every callback keeps (design.md, section 3). List a new callback below."""

import inspect
import math
from functools import partial
from importlib import import_module
from pkgutil import iter_modules

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

import lit_credit.callbacks
from lit_credit.callbacks import (
    AttentionMaps,
    CircuitMatching,
    CreditAlignment,
    CreditFunction,
    Diagnostic,
    EmbeddingGeometry,
    ExactDivergence,
    FiniteGuard,
    GradientNoise,
    GradientNorms,
    HeadAttribution,
    HeadBehaviour,
    LayerProbes,
    MemberCheckpoints,
    MetricHistory,
    PartFreezing,
    ProbeDiagnostic,
    ReferenceValidity,
    Representations,
    ResidualNorms,
    ScaleStability,
    Sharpness,
    SignalRank,
    SoftmaxJacobian,
    SpacedCheckpoints,
    StagedTraining,
    StepQuality,
    SubspaceDistance,
    SymbolAttention,
    TextSamples,
    UpdateRatios,
    WeightAlignment,
)
from lit_credit.rules import DFA, FA
from lit_credit.runs.history import read_history
from lit_credit.studies import __path__ as studies_path
from lit_credit.studies.addition import AdderAnatomy
from lit_credit.studies.ngram import LogProbTheory
from lit_credit.testing import KINDS, STATES, SmallNet, check_diagnostic
from lit_credit.testing.check import Features
from tests import support
from tests.support import Validated, Witness, files, fit, same_state

CALLBACKS = [
    AdderAnatomy,
    AttentionMaps,
    CircuitMatching,
    CreditAlignment,
    CreditFunction,
    EmbeddingGeometry,
    ExactDivergence,
    GradientNoise,
    GradientNorms,
    HeadAttribution,
    HeadBehaviour,
    LayerProbes,
    LogProbTheory,
    MetricHistory,
    ReferenceValidity,
    Representations,
    ResidualNorms,
    ScaleStability,
    SignalRank,
    Sharpness,
    SoftmaxJacobian,
    StepQuality,
    SubspaceDistance,
    SymbolAttention,
    UpdateRatios,
    WeightAlignment,
]
SCHEDULED = [kind for kind in CALLBACKS if issubclass(kind, Diagnostic)]
ON_ATTENTION = (
    AttentionMaps,
    CircuitMatching,
    HeadAttribution,
    HeadBehaviour,
    SoftmaxJacobian,
    SymbolAttention,
)
BY_WEIGHTS = (CircuitMatching, HeadAttribution)
"""Those on attention that read its weights."""
ON_MATRICES = (EmbeddingGeometry, LogProbTheory, SubspaceDistance)
"""Their units are matrices."""
ON_SYMBOLS = (
    CircuitMatching,
    ExactDivergence,
    HeadAttribution,
    HeadBehaviour,
    SymbolAttention,
    *ON_MATRICES,
)
ON_NETS = (AdderAnatomy, *ON_ATTENTION, *ON_SYMBOLS, WeightAlignment)
"""They need a net with something in it."""
OF_STEPS = (StepQuality, UpdateRatios)
"""They need nothing of a module."""
WITHOUT_UNITS = (
    AdderAnatomy,
    CreditAlignment,
    ExactDivergence,
    GradientNoise,
    Sharpness,
    *OF_STEPS,
    *ON_ATTENTION,
    *ON_MATRICES,
)
"""They have something to look at in any module."""
WITH_LOSS = [kind for kind in SCHEDULED if issubclass(kind, ProbeDiagnostic)]
UNITS = ["model.embed", "model.blocks.*"]


def make(kind, **kwargs):
    """With a small probe that is no batch of the training, and without figures, which take long."""
    if kind not in SCHEDULED:
        return kind()
    return kind(**({"figure": False} | counted(kind, 7) | kwargs))


def takes(kind, argument):
    """Whether the diagnostic has this argument."""
    return any(
        argument in inspect.signature(base.__init__).parameters
        for base in kind.__mro__
        if issubclass(base, Diagnostic)
    )


def counted(kind, n_samples):
    """The argument, for those that have it."""
    return {"n_samples": n_samples} if takes(kind, "n_samples") else {}


def net_for(kind):
    """A net that runs on what the callback gives it."""
    if kind is AdderAnatomy:
        return support.AddingNet
    return support.SymbolNet if kind in ON_SYMBOLS else support.NoisyNet


def on_foreign(kind, **kwargs):
    needs_units = kind in SCHEDULED and takes(kind, "units") and kind not in WITHOUT_UNITS
    return make(kind, **({"units": UNITS} if needs_units else {}), **kwargs)


def test_every_callback_is_listed():
    studies = [import_module(m.name) for m in iter_modules(studies_path, "lit_credit.studies.")]
    rooms = [lit_credit.callbacks, *studies]
    exported = {getattr(room, name) for room in rooms for name in room.__all__}
    callbacks = {c for c in exported if isinstance(c, type) and issubclass(c, Callback)}
    # TextSamples needs a datamodule with an alphabet, MemberCheckpoints an ensemble, FiniteGuard a
    # training that fails, SpacedCheckpoints writes no rows, and the others are there to change
    # training: they have test files of their own.
    writing = {MemberCheckpoints, SpacedCheckpoints, TextSamples}
    others = {FiniteGuard, PartFreezing, StagedTraining, *writing}
    assert {c for c in callbacks if not inspect.isabstract(c)} == {*CALLBACKS, *others}


# Training is not changed, and nothing is left behind


class WithContexts(Features):
    """With what diagnostics of contexts read."""

    contexts = support.Data.contexts


FEEDBACK = ("FA",)
"""Kinds with a feedback matrix for every weight of a net that has attention."""


# Manual optimization without a loss leaves its proof out, and says so.
@pytest.mark.few(7)
@pytest.mark.filterwarnings("ignore:CircuitMatching. heads as read are not proved")
@pytest.mark.parametrize("kind", [*CALLBACKS, FiniteGuard, SpacedCheckpoints])
def test_every_kind_of_module_is_trained_the_same_to_the_bit(kind):
    """Nets that keep state everywhere, in one; 117 combinations for most, 2236 in all."""
    make_callback = partial(make, kind, **({"every_n_steps": 1} if kind in SCHEDULED else {}))
    net = net_for(kind) if kind in ON_NETS else SmallNet
    kinds = FEEDBACK if kind is WeightAlignment else KINDS
    compared = check_diagnostic(make_callback, net=net, data=WithContexts, kinds=kinds)
    assert compared == len(kinds) * len(STATES)


@pytest.mark.few(7)
@pytest.mark.parametrize("kind", CALLBACKS)
def test_hooks_modes_and_memory_are_the_same_after_each_measurement(kind, tmp_path):
    module = support.rule(DFA, net_for(kind))
    witness = Witness()
    callback = make(kind, every_n_steps=1, figure=True)
    fit(tmp_path, module, witness, callback, witness.after)
    assert witness.compared >= 17
    assert len(callback.history.rows) == (13 if kind in SCHEDULED else 3)


class Shuffled(WithContexts):
    """Nothing to validate, and a shuffled loader of torch's with a generator of its own."""

    def train_dataloader(self):
        return support.shuffled()

    val_dataloader = None


class Resumable(Shuffled):
    """Nothing to validate, and a loader that knows where it is."""

    def train_dataloader(self):
        return support.train_loader()


@pytest.mark.few(5)
@pytest.mark.parametrize("kind", [kind for kind in CALLBACKS if kind is not WeightAlignment])
def test_a_probe_out_of_the_training_loader_leaves_it_as_it_is(kind):
    make_callback = partial(make, kind)
    net = net_for(kind) if kind in ON_NETS else SmallNet
    for data, module in ((Shuffled, "automatic"), (Resumable, "DFA")):
        compared = check_diagnostic(make_callback, net=net, data=data, kinds=[module], epochs=3)
        assert compared == len(STATES)


@pytest.mark.parametrize("kind", WITH_LOSS)
def test_a_module_that_raises_inside_a_measurement_keeps_no_trace(kind, tmp_path):
    made = (support.rule(DFA, net_for(kind)), make), (Validated(net_for(kind)), on_foreign)
    for module, make_callback in made:
        witness = Witness()
        # The first measurement is that of the probe of 7 rows; batches have 8 or 6.
        groups = {"groups": 2, "n_samples": 14, "chunk_size": 7}
        options = groups if kind is GradientNoise else {}
        net = module.net if isinstance(module, DFA) else module.model
        net.fails_on = 7
        callback = make_callback(kind, **options)
        with pytest.raises(MisconfigurationException, match="RuntimeError: the net fails"):
            fit(tmp_path / type(module).__name__, module, witness, callback)
        now = support.traces(module)
        for what in witness.before:
            assert now[what] == witness.before[what], what


@pytest.mark.parametrize("kind", SCHEDULED)
def test_a_bad_argument_leaves_no_hook_and_names_itself(kind, tmp_path):
    module = support.rule(FA, net_for(kind))
    before = support.hooks(module)
    if takes(kind, "units"):
        callback = make(kind, units=["blocks.7"])
        on_attention = kind in (ExactDivergence, *ON_ATTENTION)
        choice = r"embed\.3\.attention" if on_attention else r"blocks\.1"
        with pytest.raises(ValueError, match=f"`units`: 'blocks.7' matches nothing.*{choice}"):
            fit(tmp_path, module, callback)
    assert support.hooks(module) == before
    own = [
        ({"n_samples": 0}, "n_samples"),
        ({"units": "blocks.*"}, "units"),
        ({"units": []}, "units"),
    ]
    for arguments, name in (
        ({"every_n_epochs": 0}, "every_n_epochs"),
        ({"every_n_steps": -1}, "every_n_steps"),
        ({"every_n_epochs": 1, "every_n_steps": 1}, "every_n_steps"),
        *(case for case in own if takes(kind, case[1])),
    ):
        with pytest.raises(ValueError, match=f"`{name}`"):
            kind(**arguments)


# What it writes, and where


@pytest.mark.few(7)
@pytest.mark.parametrize("kind", CALLBACKS)
def test_fast_dev_run_leaves_no_file(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(tmp_path, support.rule(FA, net_for(kind)), make(kind, figure=True), fast_dev_run=True)
    assert files(tmp_path) == []


@pytest.mark.few(7)
@pytest.mark.parametrize("kind", CALLBACKS)
def test_without_a_logger_there_is_the_history(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(tmp_path / "runs", support.rule(FA, net_for(kind)), make(kind), logger=False, max_epochs=1)
    assert f"runs/{kind.name}.jsonl" in files(tmp_path)
    assert all(name.startswith("runs/") for name in files(tmp_path))


@pytest.mark.few(7)
@pytest.mark.parametrize("kind", SCHEDULED)
def test_csv_logger_gets_the_scalars_of_the_history(kind, tmp_path):
    fit(tmp_path, support.rule(FA, net_for(kind)), make(kind), logger="csv")
    header, *lines = [line.split(",") for line in (tmp_path / "metrics.csv").read_text().split()]
    rows = read_history(tmp_path / f"{kind.name}.jsonl")
    for row in rows:
        step = str(row["step"])
        for tag, value in make(kind).logged(row["values"]).items():
            if math.isfinite(value):
                column = header.index(tag)
                logged = [line[column] for line in lines if line[header.index("step")] == step]
                assert [float(v) for v in logged if v] == [pytest.approx(value)]


@pytest.mark.few(7)
@pytest.mark.parametrize("kind", CALLBACKS)
def test_a_resumed_run_has_the_rows_of_an_uninterrupted_one(kind, tmp_path):
    def run(name, max_steps, ckpt_path=None):
        callback = make(kind, every_n_steps=3)
        checkpoint = ModelCheckpoint(
            tmp_path / name, filename="{step}", every_n_train_steps=2, save_top_k=-1
        )
        module = support.rule(DFA, net_for(kind))
        options = {"max_steps": max_steps, "max_epochs": -1, "enable_checkpointing": True}
        options["logger"] = False
        fit(tmp_path / name, module, callback, checkpoint, ckpt_path=ckpt_path, **options)
        return module

    whole = run("whole", 14)
    run("cut", 11)
    name = f"{kind.name}.jsonl"
    # After an epoch's last batch (8) Lightning leaves out the validation of that epoch. The second
    # time the history has rows of what comes after the checkpoint, to the end.
    for saved_at in (8, 6):
        resumed = run("cut", 14, ckpt_path=tmp_path / "cut" / f"step={saved_at}.ckpt")
        assert same_state(whole, resumed)
        text = (tmp_path / "cut" / name).read_text()
        assert text == (tmp_path / "whole" / name).read_text()
        steps = [row["step"] for row in read_history(tmp_path / "cut" / name)]
        assert steps == ([0, 3, 6, 9, 12, 14] if kind in SCHEDULED else [4, 8, 12])
        assert [f for f in files(tmp_path / "cut") if f.endswith(".jsonl")] == [name]


@pytest.mark.few(7)
@pytest.mark.parametrize("kind", SCHEDULED)
def test_two_side_by_side_do_not_collide(kind, tmp_path):
    pair = (
        make(kind, every_n_epochs=2, figure=True),
        make(kind, every_n_steps=5, figure=True, **counted(kind, 9)),
    )
    fit(tmp_path, support.rule(FA, net_for(kind)), *pair, logger=False)
    one = read_history(tmp_path / f"{kind.name}.jsonl")
    other = read_history(tmp_path / f"{kind.name}-1.jsonl")
    assert [(row["step"], row["epoch"]) for row in one] == [(0, 0), (8, 2), (12, 3)]
    assert [(row["step"], row["epoch"]) for row in other] == [(0, 0), (5, 1), (10, 2), (12, 3)]
    assert all(tag.startswith(f"{kind.section}/") for row in one for tag in row["values"])
    assert all(tag.startswith(f"{kind.section}-1/") for row in other for tag in row["values"])
    figures = {f"figures/{kind.name}.png", f"figures/{kind.name}-1.png"}
    assert figures <= set(files(tmp_path))


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (CreditAlignment, {"parameters": False}),
        (CreditFunction, {"eta": 0.1}),
        (ScaleStability, {"growth_limit": 10.0}),
    ],
)
def test_two_that_differ_in_their_own_arguments_can_share_a_trainer(kind, arguments, tmp_path):
    fit(tmp_path, support.rule(DFA), kind(), kind(**arguments), max_epochs=1)
    assert len(read_history(tmp_path / f"{kind.name}-1.jsonl")) == 2
