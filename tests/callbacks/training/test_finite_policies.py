"""FiniteGuard: what becomes of the update, and that nothing else changes."""

import math
from copy import deepcopy

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_credit.callbacks import FiniteGuard
from lit_credit.rules import BP, DFA
from lit_credit.runs.history import read_history
from tests import support
from tests.callbacks.training.finite_nets import (
    MARK,
    Automatic,
    Manual,
    Marked,
    marked_loader,
    with_gradient,
)
from tests.callbacks.training.test_finite_guard import train
from tests.support import same_state, traces
from tests.support.processes import run_module


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
    "dfa": (lambda: support.rule(DFA, Marked, clip_norm=1.0), {}),
    "gradient": (lambda: support.rule(BP, with_gradient), {}),
    "momentum": (Automatic, {"gradient_clip_val": 1.0}),
    "adamw": (lambda: Automatic(optimizer="adamw"), {}),
    "two optimizers": (Manual, {}),
    "scaler": (lambda: Automatic(optimizer="adamw"), {"scale": 8.0}),
    "fused and scaler": (lambda: Automatic(optimizer="fused"), {"scale": 8.0}),
    "rule and scaler": (lambda: support.rule(DFA, Marked), {"scale": 8.0}),
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
    module = support.rule(BP, Marked)
    with torch.no_grad():
        module.net.head.bias[0] = torch.inf
    message = r"step 0 .*Weights of `net\.head\.bias` \(1 of 4 inf\)\. An update before"
    with pytest.raises(ValueError, match=message):
        train(tmp_path, module, FiniteGuard("skip"))


def test_warns_once_and_goes_on(tmp_path, recwarn):
    guard, module = FiniteGuard("warn"), Automatic()
    train(tmp_path, module, guard, logger="csv", max_epochs=4)
    texts = [str(w.message) for w in recwarn if "not finite" in str(w.message)]
    assert len(texts) == 1
    assert "`model.blocks.1.1`" in texts[0]
    rows = read_history(tmp_path / "finite_guard.jsonl")
    assert [row["step"] for row in rows] == list(range(2, 16))
    assert "finite/parameter/model.head.weight" in rows[9]["values"]
    assert all(set(row["values"]) == {"finite/loss"} for row in rows[10:])
    header, *lines = [x.split(",") for x in (tmp_path / "metrics.csv").read_text().split()]
    logged = [line[header.index("finite/events")] for line in lines]
    assert [float(x) for x in logged if x] == list(range(1, 15))


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
    [lambda: support.rule(DFA, updates_per_step=2), Automatic, Manual],
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


@pytest.mark.slow
def test_two_processes_decide_alike(tmp_path):
    run_module("tests.callbacks.training.finite_worker", tmp_path)
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
