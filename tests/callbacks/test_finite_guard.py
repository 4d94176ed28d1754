"""FiniteGuard: where NaN begins, what becomes of the update, and that nothing else changes."""

import logging
import math
import os
import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision

from lit_credit.callbacks import FiniteGuard
from lit_credit.callbacks.undefined import tell_undefined
from lit_credit.cli import main
from lit_credit.rules import BP, DFA, FA, BlockFA
from lit_credit.utils.history import read_history
from tests.callbacks import helpers
from tests.callbacks.finite_nets import (
    MARK,
    Automatic,
    Manual,
    Marked,
    marked_loader,
    with_gradient,
)
from tests.callbacks.helpers import fit, hooks, same_state, traces

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
    clean = helpers.rule(kind, Marked, **options)
    train(tmp_path / "clean", clean, max_steps=2)
    module = helpers.rule(kind, Marked, **options)
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
    module = helpers.rule(kind, with_gradient, **options)
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
    module = helpers.rule(DFA, Marked, recompute=recompute)

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
    module = helpers.rule(BP, Marked, updates_per_step=2)
    with pytest.raises(ValueError, match=r"step 1 \(epoch 0, batch 0\).*\(32 of 32 NaN\)"):
        train(tmp_path, module, FiniteGuard(), loader=marked_loader(row=5))


def test_a_batch_that_is_not_finite(tmp_path):
    with pytest.raises(ValueError, match=r"The batch has 1 of 96 inf\. First activation"):
        train(tmp_path, helpers.rule(BP), FiniteGuard(), loader=marked_loader(value=math.inf))


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


# What becomes of the update


class Snapshots(Callback):
    """Weights, buffers and the states of optimizers before the marked batch and after it."""

    def __init__(self):
        self.taken = []

    def _take(self, trainer, module):
        state = {"weights": module.state_dict()}
        state |= {str(i): o.state_dict() for i, o in enumerate(trainer.optimizers)}
        self.taken.append(deepcopy(state))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (batch[0] == MARK).any():
            self._take(trainer, pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (batch[0] == MARK).any():
            self._take(trainer, pl_module)


def flat(state):
    if isinstance(state, dict):
        return {f"{k}.{n}": v for k, s in state.items() for n, v in flat(s).items()}
    if isinstance(state, list):
        return flat(dict(enumerate(state)))
    return {"": state}


SKIPPED = {
    "dfa": (lambda: helpers.rule(DFA, Marked, clip_norm=1.0), {}),
    "gradient": (lambda: helpers.rule(BP, with_gradient), {}),
    "momentum": (Automatic, {"gradient_clip_val": 1.0}),
    "adamw": (lambda: Automatic(optimizer="adamw"), {}),
    "two optimizers": (Manual, {}),
    "scaler": (lambda: Automatic(optimizer="adamw"), {"scale": 8.0}),
    "fused and scaler": (lambda: Automatic(optimizer="fused"), {"scale": 8.0}),
    "rule and scaler": (lambda: helpers.rule(DFA, Marked), {"scale": 8.0}),
}


@pytest.mark.parametrize("case", SKIPPED)
def test_a_skipped_update_changes_no_bit(case, tmp_path):
    make, options = SKIPPED[case]
    module, guard, snapshots = make(), FiniteGuard("skip"), Snapshots()
    with pytest.warns(UserWarning, match="not finite at step .*The update is left out"):
        train(tmp_path, module, guard, snapshots, max_epochs=2, **options)
    assert (guard.events, guard.skipped) == (2, 2)
    before, after, *_ = map(flat, snapshots.taken)
    assert before.keys() == after.keys()
    moved = {k for k, v in before.items() if isinstance(v, torch.Tensor) and (v != after[k]).any()}
    # The other optimizer has stepped, the foreign module has counted and a schedule gone on.
    assert all(k.startswith(("0.", "weights.other.", "weights.steps.")) for k in moved)
    assert ("weights.other.weight." in moved) == (case == "two optimizers")
    if case != "two optimizers":
        assert moved <= {"weights.steps."}
    assert all(v.isfinite().all() for v in module.state_dict().values())
    assert len(read_history(tmp_path / "finite_guard.jsonl")) == 2
    third = flat(snapshots.taken[2])
    assert any((v != third[k]).any() for k, v in before.items() if k.startswith("weights"))


def test_accumulated_gradients_go_as_a_whole(tmp_path):
    guard, module = FiniteGuard("skip"), Automatic(Marked)
    before = deepcopy(module.state_dict())
    with pytest.warns(UserWarning, match="left out"):
        train(tmp_path, module, guard, loader=marked_loader(row=2), accumulate_grad_batches=4)
    after = module.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before if k != "steps")
    assert guard.skipped == 1


def test_skipping_cannot_mend_weights(tmp_path):
    module = helpers.rule(BP, Marked)
    with torch.no_grad():
        module.net.head.bias[0] = torch.inf
    message = r"step 0 .*Weights of `net\.head\.bias` \(1 of 4 inf\)\. An update before"
    with pytest.raises(ValueError, match=message):
        train(tmp_path, module, FiniteGuard("skip"))


def test_warns_once_and_goes_on(tmp_path, recwarn):
    guard, module = FiniteGuard("warn"), Automatic()
    train(tmp_path, module, guard, logger="csv", max_epochs=2)
    texts = [str(w.message) for w in recwarn if "not finite" in str(w.message)]
    assert len(texts) == 1
    assert "`model.blocks.1.1`" in texts[0]
    rows = read_history(tmp_path / "finite_guard.jsonl")
    assert [row["step"] for row in rows] == [2, 3, 4, 5, 6, 7]
    assert "finite/parameter/model.head.weight" in rows[1]["values"]
    header, *lines = [x.split(",") for x in (tmp_path / "metrics.csv").read_text().split()]
    logged = [line[header.index("finite/events")] for line in lines]
    assert [float(x) for x in logged if x] == [1, 2, 3, 4, 5, 6]


def test_a_scale_that_overflows_is_left_to_the_scaler(tmp_path):
    guard = FiniteGuard()
    run = train(tmp_path, Automatic(Marked), guard, loader=marked_loader(value=0.0), scale=2.0**30)
    assert run.precision_plugin.scaler.get_scale() < 2.0**30
    assert guard.events == 0


def test_gradients_that_no_scale_makes_finite_are_not(tmp_path):
    message = r"Loss 1\..*First credit, from the top: `model\.blocks\.1\.0`"
    with pytest.raises(ValueError, match=message):
        train(tmp_path, Automatic(with_gradient), FiniteGuard(), scale=1.0)


# Nothing else


@pytest.mark.parametrize("policy", ["raise", "skip"])
@pytest.mark.parametrize(
    "make",
    [lambda: helpers.rule(DFA, updates_per_step=2), Automatic, Manual],
    ids=["rule", "a", "m"],
)
def test_finite_training_is_the_same_to_the_bit(make, policy, tmp_path):
    found = []
    for callbacks in ([], [FiniteGuard(policy)]):
        module = make()
        train(tmp_path, module, *callbacks, loader=marked_loader(value=0.0))
        found.append((module, torch.get_rng_state()))
    assert same_state(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert not list(tmp_path.glob("finite_guard*"))
    assert not callbacks[0]._taken


def test_a_searched_step_leaves_all_as_it_was(tmp_path):
    """Two runs that skip the same updates, one of them without a search."""
    found = []
    for searched in (True, False):
        module, guard = Automatic(), FiniteGuard("skip")
        if not searched:
            guard._parts = lambda _: []
        with pytest.warns(UserWarning, match="left out"):
            train(tmp_path / str(searched), module, guard, max_epochs=2)
        found.append((module, traces(module)))
    assert same_state(found[0][0], found[1][0])
    assert {k for k, v in found[0][1].items() if v != found[1][1][k]} <= {"places"}


def test_a_resumed_run_goes_on_counting(tmp_path):
    def run(epochs, ckpt_path=None):
        guard, module = FiniteGuard("skip"), Automatic()
        saving = ModelCheckpoint(tmp_path, filename="last", enable_version_counter=False)
        options = {"enable_checkpointing": True, "max_epochs": epochs, "ckpt_path": ckpt_path}
        train(tmp_path, module, guard, saving, **options)
        return guard

    with pytest.warns(UserWarning, match="left out"):
        run(1)
    guard = run(3, tmp_path / "last.ckpt")  # does not warn again
    assert guard.events == guard.skipped == 3
    rows = read_history(tmp_path / "finite_guard.jsonl")
    assert [row["step"] for row in rows] == [2, 6, 10]


def test_two_processes_decide_alike(tmp_path):
    words = [sys.executable, "-m", "tests.callbacks.finite_worker", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    for policy, step in (("skip", 4), ("raise", 2)):
        one, two = (torch.load(tmp_path / f"{policy}_{rank}.pt") for rank in (0, 1))
        assert torch.equal(one["weights"], two["weights"])
        assert one["events"] == two["events"] == 1
        assert one["skipped"] == two["skipped"] == (policy == "skip")
        assert one["step"] == two["step"] == step
        assert one["message"] == two["message"]
    assert "step 2 (epoch 0, batch 2, process 1). Loss inf" in one["message"]
    rows = read_history(tmp_path / "finite_guard.1.jsonl")
    assert [row["values"]["finite/loss"] for row in rows] == [math.inf]


def test_bad_arguments(tmp_path):
    for arguments, name in (({"policy": "ignore"}, "policy"), ({"units": "net"}, "units")):
        with pytest.raises(ValueError, match=f"`{name}`"):
            FiniteGuard(**arguments)
    with pytest.raises(ValueError, match=r"`units`: 'blocks.7' matches nothing"):
        train(tmp_path, helpers.rule(BP), FiniteGuard(units=["blocks.7"]))


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
        "a/L00: undefined or not finite at step 1, one of 1 such values of 2 in its measurement; "
        "figures say n/a."
    ]
