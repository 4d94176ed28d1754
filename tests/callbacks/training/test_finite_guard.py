"""FiniteGuard: where NaN begins, what becomes of the update, and that nothing else changes."""

import logging
import math

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins import MixedPrecision

from lit_credit.callbacks import FiniteGuard
from lit_credit.callbacks.base.failures import tell_undefined
from lit_credit.cli import main
from lit_credit.rules import BP, DFA, FA, BlockFA
from lit_credit.runs.history import read_history
from tests import support
from tests.callbacks.training.finite_nets import (
    Automatic,
    Manual,
    Marked,
    Poison,
    marked_loader,
    with_gradient,
)
from tests.support import fit, hooks, same_state

LOCAL = [(kind, {"recompute": again}) for kind in (BlockFA, DFA) for again in (False, True)]
RULES = [(BP, {}), (FA, {}), *LOCAL, (DFA, {"normalize_credit": True})]


def train(folder, module, *callbacks, loader=None, scale=None, **kwargs):
    options = {"logger": False, "max_epochs": 1} | kwargs
    if scale is not None:  # of itself Lightning has no scaler on a CPU
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        options["plugins"] = [MixedPrecision("16-mixed", "cpu", scaler=scaler)]
    return fit(folder, module, *callbacks, loaders=(loader or marked_loader(), None), **options)


def values(folder):
    (row,) = read_history(folder / "finite_guard.jsonl")
    return {tag.removeprefix("finite/"): value for tag, value in row["values"].items()}


# Where it began


@pytest.mark.parametrize(("kind", "options"), RULES, ids=str)
def test_names_the_unit_and_leaves_the_weights(kind, options, tmp_path):
    clean = support.rule(kind, Marked, **options)
    train(tmp_path / "clean", clean, max_steps=2)
    module = support.rule(kind, Marked, **options)
    before = hooks(module)
    message = (
        r"step 2 \(epoch 0, batch 2\)\. Loss .*activation: `net\.blocks\.1\.1` \(64 of 64 NaN\)"
    )
    with pytest.raises(FloatingPointError, match=message):
        train(tmp_path, module, FiniteGuard())
    assert same_state(clean, module)
    assert hooks(module) == before
    found = values(tmp_path)
    assert found["activation/net.blocks.1.1"] == 1
    assert found["gradient/net.blocks.1.0.weight"] == 1


@pytest.mark.parametrize(("kind", "options"), RULES, ids=str)
def test_names_the_credit_where_the_forward_pass_is_finite(kind, options, tmp_path):
    module = support.rule(kind, with_gradient, **options)
    message = r"First credit, from the top: `net\.blocks\.1\.0` \(64 of 64 NaN\)"
    with pytest.raises(ValueError, match=message):
        train(tmp_path, module, FiniteGuard())
    found = values(tmp_path)
    assert math.isfinite(found["loss"])
    assert not any(tag.startswith("activation") for tag in found)
    # Under a local rule nothing of it reaches the units below.
    passes_on = kind in (BP, FA)
    assert ("gradient/net.embed.0.weight" in found) == passes_on


@pytest.mark.parametrize("recompute", [False, True])
def test_names_the_unit_whose_feedback_is_not_finite(recompute, tmp_path):
    module = support.rule(DFA, Marked, recompute=recompute)

    class Spoil(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 1:
                pl_module.feedback.matrix[8:16] = torch.inf  # of blocks.0

    with pytest.raises(ValueError, match=r"First credit, from the top: `net\.blocks\.0` "):
        train(tmp_path, module, FiniteGuard(), Spoil())
    assert values(tmp_path)["gradient/net.blocks.0.weight"] > 0


@pytest.mark.parametrize("kind", [Automatic, Manual])
def test_foreign_modules(kind, tmp_path):
    module = kind()
    guard = FiniteGuard(units=["model.blocks.*", "model.head"])
    with pytest.raises(
        ValueError, match=r"First activation: `model\.blocks\.1`.*top: `model\.head`"
    ):
        train(tmp_path, module, guard)
    train(tmp_path / "clean", clean := kind(), limit_train_batches=2)
    norms = ("running", "num_batches", "steps", "other")  # what the step had done before
    one, two = module.state_dict(), clean.state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one if not any(n in k for n in norms))
    assert hooks(module) == hooks(kind())
    assert all(p.requires_grad for p in module.model.parameters())


def test_the_first_of_accumulated_batches(tmp_path):
    loader = marked_loader(row=9)  # the second of four that make an update
    with pytest.raises(ValueError, match=r"step 0 .*activation: `model\.blocks\.1\.1`"):
        train(tmp_path, Automatic(), FiniteGuard(), loader=loader, accumulate_grad_batches=4)


def test_one_of_several_updates_in_a_step(tmp_path):
    module = support.rule(BP, Marked, updates_per_step=2)
    with pytest.raises(ValueError, match=r"step 1 \(epoch 0, batch 0\).*\(32 of 32 NaN\)"):
        train(tmp_path, module, FiniteGuard(), loader=marked_loader(row=5))


def test_a_batch_that_is_not_finite(tmp_path):
    with pytest.raises(ValueError, match=r"The batch has 1 of 96 inf\. First activation"):
        train(tmp_path, support.rule(BP), FiniteGuard(), loader=marked_loader(value=math.inf))


class Namesakes(Automatic):
    """Has attributes that mean something else in our rules, and loses its way in odd batches."""

    def __init__(self):
        super().__init__()
        self.updates_per_step = self.credit_units = 3
        self.credit = self.lost = Poison("activation")

    def training_step(self, batch, batch_idx):
        self.lost.marked = batch_idx % 2 == 1
        return self.lost(super().training_step(batch, batch_idx))


class Unseen(Manual):
    """Goes backward without Lightning, from a finite loss."""

    def __init__(self):
        super().__init__(with_gradient)

    def manual_backward(self, loss):
        loss.backward()


def test_foreign_attributes_are_not_taken_for_those_of_rules(tmp_path):
    message = r"step 1 .*\. Loss nan\. First activation: `credit` .*top: `model\.head` "
    with pytest.raises(ValueError, match=message):
        train(tmp_path, Namesakes(), FiniteGuard())


def test_a_loss_that_is_not_seen_is_not_called_nan(tmp_path):
    with pytest.raises(ValueError, match=r"No loss seen\. First credit, from the top: `model\.bl"):
        train(tmp_path, Unseen(), FiniteGuard())
    assert "loss" not in values(tmp_path)


class Once(Automatic):
    """Not finite the first time only, or failing the second time."""

    times, error = 0, None

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        type(self).times += 1
        if self.times == 2 and self.error:
            raise KeyError(self.error)
        return loss * (torch.nan if self.times == 1 else 1.0)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (None, "Run again, every activation and every credit of the step was finite"),
        ("gone", "could not be run again to find the unit: KeyError: 'gone'"),
    ],
)
def test_what_cannot_be_found_is_said(error, message, tmp_path, monkeypatch):
    monkeypatch.setattr(Once, "times", 0)
    monkeypatch.setattr(Once, "error", error)
    module = Once()
    with pytest.raises(ValueError, match=message):
        train(tmp_path, module, FiniteGuard())
    assert "training_step" not in vars(module)
    assert "log" not in vars(module)


# Arguments, and what diagnostics say


def test_bad_arguments(tmp_path):
    for arguments, name in (({"policy": "ignore"}, "policy"), ({"units": "net"}, "units")):
        with pytest.raises(ValueError, match=f"`{name}`"):
            FiniteGuard(**arguments)
    with pytest.raises(ValueError, match=r"`units`: 'blocks.7' matches nothing"):
        train(tmp_path, support.rule(BP), FiniteGuard(units=["blocks.7"]))


def test_from_yaml(tmp_path, capsys):
    args = ["fit", "--config", "configs/residual_explosion/bp.yaml", "--trainer.accelerator", "cpu"]
    args += [
        "--model.net.width",
        "8",
        "--trainer.limit_train_batches",
        "4",
        "--trainer.max_epochs",
        "1",
    ]
    args += ["--trainer.logger", "false", "--trainer.callbacks", "FiniteGuard"]
    args += ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "1e36"]
    args += ["--trainer.enable_progress_bar", "false", "--trainer.num_sanity_val_steps", "0"]
    assert main([*args, "--trainer.default_root_dir", str(tmp_path / "a")]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("lit-credit: error: training is not finite at step 1 (epoch 0, batch 1")
    args += ["--trainer.callbacks.policy", "skip"]
    with pytest.warns(UserWarning, match="left out"):
        assert main([*args, "--trainer.default_root_dir", str(tmp_path / "b")]) == 0
    assert len(read_history(tmp_path / "b" / "finite_guard.jsonl")) == 3


# Diagnostics


def test_a_measurement_with_nan_is_told_once(tmp_path, caplog):
    values, rows = {"a/L00": math.nan, "a/L01": 1.0}, []
    with caplog.at_level(logging.INFO):
        for step in range(3):
            tell_undefined(rows, step, values if step else {"a/L00": 1.0, "a/L01": 1.0})
            rows.append({"step": step, "epoch": 0, "name": "", "values": values if step else {}})
    assert [r.getMessage() for r in caplog.records] == [
        "a/L00 is undefined or not finite at step 1, of 2 measured; figures say n/a."
    ]
