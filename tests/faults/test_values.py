"""Numbers without sense, in every argument of every exported class: refused by the name."""

import inspect
import math
import types
import typing
from contextlib import suppress

import pytest
import torch
from torch import nn
from torch.optim import SGD

from lit_credit import callbacks, datamodules, feedback, models, rules, tasks
from lit_credit.models import MLP, EnergyMLP
from lit_credit.studies import addition, copying, ngram
from lit_credit.studies.ngram import ParallelAttention
from lit_credit.tasks import Classification

VALUES = (0, -1, 10**9, math.nan, math.inf)
LARGE = 10**9


def net():
    return MLP(4, [3], 2)


REQUIRED = {
    "CausalSelfAttention": lambda: {"width": 4, "heads": 2},
    "ParallelAttention": lambda: {"width": 4, "parallel_heads": 2},
    "Rotary": lambda: {"features": 4},
    "Ensemble": lambda: {"net": net},
    "Inverses": lambda: {"units": ["a", "b"]},
    "EquilibriumPropagation": lambda: {"net": EnergyMLP(4, [3], 2)},
    "SeparateHeads": lambda: {"stacked": ParallelAttention(4, 2)},
    "EachMember": lambda: {"task": Classification(2)},
    "Supervised": lambda: {"loss": nn.MSELoss()},
    "StagedTraining": lambda: {"stages": [["net"]]},
    "PartFreezing": lambda: {"frozen": ["net"]},
    "NGram": lambda: {"distribution": ngram.PowerUnif()},
    "ImageFolder": lambda: {"root": "."},
    "ArrayFile": lambda: {"file": "x.npz", "names": ["x"]},
    "TensorDataModule": lambda: {"batch_size": 4, "val_batch_size": 4, "seed": None},
    "WarmupCosine": lambda: {"optimizer": SGD([torch.zeros(1)], 0.1), "warmup": 1, "total": 9},
    "BlockFeedback": lambda: {"units": ["a"]},
    "DirectFeedback": lambda: {"units": ["a"]},
}
STUDIES = (addition, copying, ngram)
NOT_BY_HAND = {"TensorLoader", "FeedbackLayer", "Broadcast", "CopyTarget", "MemberMetric"}
"""Made by other classes, which have checked what they hand on; TensorLoader has its own test."""
MEANINGFUL = {
    # A seed is any number that the generator takes.
    "seed": {0, -1, LARGE},
    "distribution_seed": {0, LARGE},
    "split_seed": {0, LARGE},
    "val_split": {0},
    "feedback_seed": {0, -1, LARGE},
    "first_seed": {0, -1, LARGE},
    "noise_seed": {0, -1, LARGE},
    # So large a batch has all samples; so long an interval never ends.
    "batch_size": {LARGE},
    "val_batch_size": {LARGE},
    "val_windows": {LARGE},
    "steps_per_epoch": {LARGE},
    "every_n_epochs": {LARGE},
    "every_n_steps": {LARGE},
    "epochs_per_stage": {LARGE},
    "unfreeze_epoch": {LARGE},
    "every": {LARGE},
    "until": {0, LARGE},
    # A rule may be badly tuned.
    "inference_lr": {LARGE},
    "loss_weight": {LARGE},
    "target_lr": {LARGE},
    "epsilon": {LARGE},
    "reconstruction_noise": {0, LARGE},
    # Looked at when the data are there.
    "n_samples": {LARGE},
    "chunk_size": {LARGE},
    "positions": {LARGE},
    "reach": {LARGE},
    "aux_weight": {0, LARGE},
    "context": {LARGE},
    "vocab_size": {LARGE},
    "n_tokens": {LARGE},
    "rank": {LARGE},
    "key": {0, LARGE},
    "warmup": {0},
    "total": {LARGE},
    "floor": {0},
    "position": {0, -1, LARGE},
    "inputs": {0, -1, LARGE},
    "target": {0, -1, LARGE},
    # Factors, and numbers in an exponent.
    "scale": {0, -1, LARGE},
    "feedback_scale": {0, -1, LARGE},
    "scale_penalty": {0, LARGE},
    "beta": {LARGE},
    "sim_weight": {0},
    "threshold": {LARGE},
    "peer_weight": {0, LARGE},
    "peer_momentum": {0},
    "label_scale": {LARGE},
    "heads_seed": {0, -1, LARGE},
    "mirror_decay": {0, LARGE},
    "mirror_batches": {0, LARGE},
    "skew": {0, -1, LARGE},
    "importance": {0, -1, LARGE},
    "flat": {0, -1, LARGE},
    "large": {0, -1, LARGE},
    "small": {0, -1, LARGE},
    "w2_std": {0, LARGE},
    "theta": {LARGE},
    "rope_theta": {LARGE},
    "temperature": {0, LARGE},
    "ridge": {LARGE},
    # No block, no dropout, nothing carried, no limit.
    "depth": {0},
    "dropout": {0},
    "max_shift": {0},
    "burn_in": {0},
    "carry_mix": {0},
    "peak": {0},
    "clip_norm": {LARGE, math.inf},
    "clip_per_unit": {LARGE, math.inf},
    "growth_limit": {0, LARGE, math.inf},
    "frozen_accuracy": {0},
    "accuracy_margin": {0},
    "reference_limit": {0, -1},
    "groups": {LARGE},
    "iterations": {LARGE},
    "tolerance": {0},
}


def is_number(hint):
    members = typing.get_args(hint) if typing.get_origin(hint) in UNIONS else (hint,)
    return bool({int, float} & set(members))


UNIONS = (typing.Union, types.UnionType)


def numbers_of(kind):
    """Arguments that take a number, also those that a base class takes."""
    found = {}
    for parent in kind.__mro__:
        if parent.__module__.startswith("lit_credit") and "__init__" in vars(parent):
            hints = typing.get_type_hints(parent.__init__)
            found |= {name: hint for name, hint in hints.items() if is_number(hint)}
    own = inspect.signature(kind).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in own.values())
    return [n for n in found if (n in own or open_ended) and n != "last_epoch"]  # torch's


def cases():
    found = []
    for package in (models, datamodules, tasks, rules, callbacks, feedback, *STUDIES):
        for name in package.__all__:
            kind = getattr(package, name)
            if isinstance(kind, type) and not inspect.isabstract(kind) and name not in NOT_BY_HAND:
                found += [(package, name, argument) for argument in numbers_of(kind)]
    return found


def make(package, name, **arguments):
    kind = getattr(package, name)
    is_rule = issubclass(kind, rules.CreditRule)
    required = {"net": net(), "task": Classification(2)} if is_rule else {}
    return kind(**(required | REQUIRED.get(name, dict)() | arguments))


@pytest.mark.parametrize(
    ("package", "name", "argument"), cases(), ids=lambda x: getattr(x, "__name__", x)
)
def test_a_number_without_sense_is_refused_by_name(package, name, argument):
    allowed = MEANINGFUL.get(argument, set())
    for value in VALUES:
        if value in allowed:
            with suppress(ValueError):  # of another class, or beside the other defaults
                make(package, name, **{argument: value})
            continue
        with pytest.raises(ValueError, match=f"`{argument}") as raised:
            make(package, name, **{argument: value})
        assert str(value) in str(raised.value)


def test_the_list_has_the_arguments_of_some_class_only():
    arguments = {argument for *_, argument in cases()}
    assert len(arguments) > 50
    assert set(MEANINGFUL) <= arguments


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: MLP(4, [3, 0]), "hidden[1]"),
        (lambda: addition.AdderAnatomy(ratios=[1.0, math.nan]), "ratios"),
        (lambda: callbacks.CircuitMatching(ranks=[0]), "ranks"),
        (lambda: models.RotaryTransformer(heads=0), "heads"),
        (lambda: ngram.LowRank(vocab_size=1000, block_size=60), "vocab_size ** block_size"),
        (lambda: rules.BP(net(), Classification(2), clip_per_unit={"*": math.nan}), "clip_per_"),
        (lambda: ngram.PowerUnif(alphas=[1.0, math.nan, 1.0]), "alphas"),
    ],
)
def test_so_are_numbers_in_lists_and_pairs_that_do_not_fit(make, argument):
    with pytest.raises(ValueError, match=argument.replace("[", r"\[").replace("*", r"\*")):
        make()


def test_a_loss_of_another_signature_is_refused_with_what_it_takes():
    with pytest.raises(ValueError, match=r"`loss` is .*\(batch\), .*function of \(module, batch\)"):
        callbacks.GradientNorms(loss=lambda batch: batch)
    callbacks.GradientNorms(loss=lambda module, batch, weight=1.0: batch)
    callbacks.GradientNorms(loss=torch.nn.MSELoss())
