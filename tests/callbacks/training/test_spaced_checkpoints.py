"""A series of checkpoints over training."""

import math
import re
from argparse import Namespace
from contextlib import suppress

import pytest
import pytorch_lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lit_credit import diagnose
from lit_credit.callbacks import CreditAlignment, GradientNorms, ResidualNorms, SpacedCheckpoints
from lit_credit.rules import BP, DFA, FA
from lit_credit.runs.run_checkpoints import look_into, newest
from lit_credit.tasks import Classification
from tests import support
from tests.rules.evaluation.test_weight_modes import ScheduleFreeSGD
from tests.support import Foreign, NoisyNet, fit, same_state, tensors

EVERY = {"steps": "linear", "every": 1}


def steps_in(folder):
    return [int(path.stem.removeprefix("step=")) for path in sorted(folder.glob("step=*.ckpt"))]


def series(folder):
    """The contents of each file by step."""
    files = sorted((folder / "checkpoints").glob("step=*.ckpt"))
    return {c["global_step"]: c for c in (torch.load(file, weights_only=True) for file in files)}


def equal(one, other):
    """Whether two nested values are equal to the bit, but for the time at which they were saved."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        names = one.keys() - {"saved_at"}
        return names == other.keys() - {"saved_at"} and all(equal(one[k], other[k]) for k in names)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other or (one != one and other != other)


class Weights(Callback):
    """The weights of each step, copied by hand."""

    def __init__(self):
        self.at = {}

    def on_train_start(self, trainer, module):
        self._copy(trainer, module)

    def on_train_batch_end(self, trainer, module, *_):
        self._copy(trainer, module)

    def _copy(self, trainer, module):
        state = {name: value.clone() for name, value in module.state_dict().items()}
        self.at.setdefault(trainer.global_step, state)


# Schedule


@pytest.mark.parametrize(
    ("arguments", "end", "expected"),
    [
        ({}, 2500, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000]),
        ({"every": 100}, 710, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 700]),
        ({"every": 3}, 519, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 513, 516, 519]),
        ({"steps": "linear", "every": 40}, 100, [0, 40, 80]),
        ({"until": 100}, 300, [0, 1, 2, 4, 8, 16, 32, 64]),
        ({"until": 0}, 300, [0]),
        ({"also": [3, 5, 9]}, 10, [0, 1, 2, 3, 4, 5, 8, 9]),
        ({"steps": "linear", "also": [0, 7], "until": 7}, 3000, [0, 7]),
    ],
)
def test_schedule(arguments, end, expected):
    callback = SpacedCheckpoints(**arguments)
    seen, found = -1, []
    for step in range(end + 1):
        if callback._latest_due(step) > seen:
            found.append(step)
        seen = step
    assert found == expected
    assert list(callback._due_between(-1, end)) == expected[::-1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"steps": "cubic"}, "`steps` is 'cubic', expected 'log' or 'linear'"),
        ({"every": 0}, "`every` is 0, expected at least 1"),
        ({"every": 2.5}, "`every` is 2.5, expected a whole number"),
        ({"until": -1}, "`until` is -1, expected at least 0"),
        ({"also": [3, -1]}, r"`also\[1\]` is -1, expected at least 0"),
        ({"also": 3}, "`also` is 3, expected a list of steps"),
        ({"also": ["3"]}, r"`also` is \['3'\], expected a list of steps"),
        ({"also": [20], "until": 10}, "`also` names step 20, which is after `until`, 10"),
        ({"dirpath": "s3://bucket/series"}, "`dirpath` is 's3://bucket/series', expected a local"),
    ],
)
def test_wrong_arguments_are_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        SpacedCheckpoints(**arguments)


# What the files hold


def schedule_free(parameters):
    return ScheduleFreeSGD(parameters, lr=0.01)


@pytest.mark.parametrize("kind", [BP, FA, DFA])
def test_files_hold_the_weights_of_their_steps_and_training_is_the_same(kind, tmp_path):
    """With dropout and batch norm."""
    weights = Weights()
    module = support.rule(kind, NoisyNet)
    rows = [ResidualNorms(every_n_steps=2, figure=False) for _ in range(2)]
    fit(tmp_path, module, SpacedCheckpoints(every=3), rows[0], weights, logger=False)
    plain = support.rule(kind, NoisyNet)
    fit(tmp_path / "plain", plain, rows[1], logger=False)
    assert same_state(module, plain)
    histories = [
        (at / "residual_norms.jsonl").read_bytes() for at in (tmp_path, tmp_path / "plain")
    ]
    assert histories[0] == histories[1]
    found = series(tmp_path)
    assert steps_in(tmp_path / "checkpoints") == list(found) == [0, 1, 2, 4, 8, 12]
    assert {step: c["lit_credit_series"] for step, c in found.items()} == {
        step: {"epochs_completed": step // 4} for step in found
    }
    for step, checkpoint in found.items():
        # A matrix that is drawn at its first use is not in the file of step 0.
        assert equal(checkpoint["state_dict"], weights.at[step])
        assert "random_state" in checkpoint
        assert not {"optimizer_states", "callbacks"} & checkpoint.keys()
        path = tmp_path / "checkpoints" / f"step={step:08d}.ckpt"
        assert kind.load_from_checkpoint(path, net=NoisyNet(), task=Classification(support.CLASSES))


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, schedule_free])
@pytest.mark.parametrize(("kind", "is_first"), [(BP, True), (FA, False), (DFA, True), (DFA, False)])
def test_diagnose_takes_the_rows_of_the_run_whatever_the_order(kind, is_first, optimizer, tmp_path):
    """Weights, buffers, random numbers and the number of epochs are those that the run measured."""
    rows = GradientNorms(every_n_steps=4, figure=False)
    pair = [SpacedCheckpoints(steps="linear", every=4), rows]
    module = support.rule(kind, NoisyNet, optimizer=optimizer)
    fit(tmp_path, module, *(pair if is_first else pair[::-1]), logger=False)
    data = support.ValidatedData(support.train_loader(), support.val_loader())
    files = sorted((tmp_path / "checkpoints").glob("step=*.ckpt"))
    model = support.rule(kind, NoisyNet, optimizer=optimizer)
    found = diagnose(model, [GradientNorms(figure=False)], data=data, checkpoints=files)
    assert found["gradient_norms"].rows == rows.history.rows
    assert [row["epoch"] for row in rows.history.rows] == [0, 1, 2, 3]


def test_under_two_sets_of_weights_both_are_in_the_file(tmp_path):
    module = support.rule(DFA, NoisyNet, optimizer=schedule_free)
    weights = Weights()
    fit(tmp_path, module, SpacedCheckpoints(**EVERY), weights, logger=False)
    for step, checkpoint in series(tmp_path).items():
        trained = checkpoint["state_dict"] | checkpoint.get("trained_weights", {})
        assert equal(trained, weights.at[step])
    names = checkpoint["trained_weights"]
    assert any(not equal(checkpoint["state_dict"][name], names[name]) for name in names)


@pytest.mark.parametrize("full", [False, True])
def test_under_averaged_weights_the_trained_ones_can_be_had(full, tmp_path):
    module, weights = support.rule(BP, NoisyNet), Weights()
    averaging = WeightAveraging()
    fit(tmp_path, module, SpacedCheckpoints(**EVERY, full=full), weights, averaging, logger=False)
    for step, checkpoint in series(tmp_path).items():
        assert equal(
            checkpoint.get("current_model_state", checkpoint["state_dict"]), weights.at[step]
        )


# Several optimizers, several updates, foreign projects


class Manual(Foreign):
    """Two optimizers; each training step advances ``global_step`` by two."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(F.cross_entropy(self.model(batch[0]), batch[1]))
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=lr) for lr in (0.1, 0.01)]


def updating(updates):
    return lambda: support.rule(DFA, NoisyNet, updates_per_step=updates)


@pytest.mark.parametrize(
    ("make", "options", "expected"),
    [
        (Foreign, {}, [0, 3, 5, 6, 9, 12]),
        (Foreign, {"accumulate_grad_batches": 2}, [0, 3, 5, 6]),
        (Foreign, {"max_steps": 7}, [0, 3, 5, 6, 7]),
        (Manual, {}, [0, 4, 6, 10, 12, 16, 18, 22, 24]),
        (Manual, {"max_steps": 9}, [0, 4, 6, 10]),
        (updating(4), {}, [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48]),
        (updating(2), {"max_steps": 11}, [0, 4, 6, 10, 11]),
        (Foreign, {"limit_train_batches": 0}, []),
    ],
)
@pytest.mark.filterwarnings("ignore:.*limit_train_batches")
def test_the_first_step_at_or_after_a_due_one_is_kept(make, options, expected, tmp_path):
    callback, weights = SpacedCheckpoints(steps="linear", every=3, also=[5]), Weights()
    fit(tmp_path, make(), callback, weights, logger=False, **options)
    found = series(tmp_path)
    assert list(found) == expected
    for step, checkpoint in found.items():
        assert step not in weights.at or equal(checkpoint["state_dict"], weights.at[step])


def test_in_a_project_of_the_other_package(tmp_path):
    class Module(pytorch_lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(support.FEATURES, support.CLASSES)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = pytorch_lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[SpacedCheckpoints(**EVERY)],
    )
    io = trainer.strategy.checkpoint_io
    trainer.fit(Module(), DataLoader(TensorDataset(*tensors(16)), batch_size=8))
    assert trainer.strategy.checkpoint_io is io
    assert list(series(tmp_path)) == [0, 1, 2]
    assert trainer.checkpoint_callback is not None  # Lightning's own is still there


def test_a_callback_that_stops_the_run_does_not_lose_the_last_step(tmp_path):
    class Stops(Callback):
        def on_train_epoch_end(self, trainer, module):
            trainer.should_stop = True

    fit(tmp_path, Foreign(), SpacedCheckpoints(), Stops(), logger=False)
    assert list(series(tmp_path)) == [0, 1, 2, 4]
    fit(tmp_path, Foreign(), SpacedCheckpoints(until=3), Stops(), logger=False)
    assert list(series(tmp_path)) == [0, 1, 2]


def test_a_trial_run_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for callback in (SpacedCheckpoints(), SpacedCheckpoints(dirpath=tmp_path / "series")):
        fit(tmp_path, Foreign(), callback, fast_dev_run=True)
    assert support.files(tmp_path) == []


@pytest.mark.filterwarnings("ignore:.* is no local folder")
def test_a_remote_folder_is_refused_without_a_local_dirpath(tmp_path):
    with pytest.raises(MisconfigurationException, match="Give it a `dirpath`"):
        fit("memory://runs", Foreign(), SpacedCheckpoints(), logger=False)
    own = SpacedCheckpoints(dirpath=tmp_path / "series")
    fit("memory://runs", Foreign(), own, logger=False)
    assert steps_in(tmp_path / "series") == [0, 1, 2, 4, 8, 12]


# Resumed runs


class Killed(Exception):
    """Ends a run without a word."""


class Kills(Callback):
    """Ends the run at the end of a step, before or after other callbacks are called."""

    def __init__(self, at):
        self.at = at

    def on_train_batch_end(self, trainer, module, *_):
        if trainer.global_step >= self.at:
            raise Killed


def run(folder, *, kill_at=math.inf, ckpt_path=None, steps=10, **arguments):
    """A run with a checkpoint every three steps; full files come with a diagnostic behind them."""
    module = support.rule(DFA, NoisyNet)
    checkpoint = ModelCheckpoint(folder / "own", "{step}", every_n_train_steps=3, save_top_k=-1)
    callbacks = [
        SpacedCheckpoints(**(EVERY | {"also": [5]} | arguments)),
        Kills(kill_at),
        *([CreditAlignment(every_n_steps=1, figure=False)] if arguments.get("full") else []),
        checkpoint,
    ]
    options = {"max_steps": steps, "max_epochs": -1, "enable_checkpointing": True, "logger": False}
    with suppress(Killed):
        fit(folder, module, *callbacks, ckpt_path=ckpt_path, **options)
    return module


def same_series(one, other):
    found, expected = series(one), series(other)
    return found.keys() == expected.keys() and all(
        equal(found[s]["state_dict"], expected[s]["state_dict"])
        and equal(found[s]["random_state"], expected[s]["random_state"])
        and found[s]["lit_credit_series"] == expected[s]["lit_credit_series"]
        for s in found
    )


@pytest.mark.parametrize("saved_at", [3, 6])
def test_a_resumed_run_has_the_series_of_an_unbroken_one(saved_at, tmp_path):
    run(tmp_path / "whole")
    cut = tmp_path / "cut"
    run(cut, kill_at=8)
    assert steps_in(cut / "checkpoints") == [*range(9)]
    stale = cut / "checkpoints" / "step=00000007.ckpt"
    later = torch.load(stale, weights_only=True)
    later["state_dict"] = {}
    torch.save(later, stale)
    run(cut, ckpt_path=cut / "own" / f"step={saved_at}.ckpt", steps=saved_at + 1)
    assert steps_in(cut / "checkpoints") == [*range(saved_at + 2)]  # of the killed run none is left
    run(cut, ckpt_path=cut / "own" / f"step={saved_at}.ckpt")
    assert same_series(cut, tmp_path / "whole")


def test_what_a_kill_has_prevented_is_written_and_what_is_there_is_not_written_again(tmp_path):
    run(tmp_path / "whole")
    cut = tmp_path / "cut"
    run(cut, kill_at=8)
    folder = cut / "checkpoints"
    (folder / "step=00000006.ckpt").unlink()
    times = {path: path.stat().st_mtime_ns for path in folder.glob("step=0000000[0-5].ckpt")}
    run(cut, ckpt_path=cut / "own" / "step=6.ckpt")
    assert same_series(cut, tmp_path / "whole")
    assert times == {path: path.stat().st_mtime_ns for path in times}


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_run_resumed_in_a_new_folder_goes_on_where_the_series_ended(tmp_path):
    run(tmp_path / "one", kill_at=8, steps=10, full=True, every=2)
    source = tmp_path / "one" / "checkpoints" / "step=00000006.ckpt"
    run(tmp_path / "two", ckpt_path=source, every=2)
    assert steps_in(tmp_path / "two" / "checkpoints") == [8, 10]
    run(tmp_path / "three", ckpt_path=tmp_path / "one" / "own" / "step=6.ckpt", every=2)
    assert steps_in(tmp_path / "three" / "checkpoints") == [6, 8, 10]


@pytest.mark.parametrize("name", ["step=00000004.ckpt", "renamed.ckpt"])
def test_a_run_resumes_to_the_bit_from_a_full_file(name, tmp_path):
    """Step 4 ends an epoch, and its row is measured after the file is written."""
    whole = run(tmp_path / "whole", full=True)
    cut = tmp_path / "cut"
    run(cut, kill_at=4, full=True)
    path = (cut / "checkpoints" / "step=00000004.ckpt").rename(cut / "checkpoints" / name)
    assert newest(map(look_into, (cut / "checkpoints").glob("*.ckpt"))).path == path
    resumed = run(cut, ckpt_path=path, full=True)
    assert same_state(whole, resumed)
    rows = [(at / "credit_alignment.jsonl").read_text() for at in (cut, tmp_path / "whole")]
    assert rows[0] == rows[1]
    path.unlink()
    weights = steps_in(cut / "checkpoints")
    assert weights == [s for s in range(11) if name != "step=00000004.ckpt" or s != 4]


def test_weights_alone_are_not_taken_for_the_last_checkpoint(tmp_path):
    run(tmp_path)
    found = [look_into(path) for path in tmp_path.rglob("*.ckpt")]
    assert max(saved.step for saved in found) == 10
    assert newest(found).path == tmp_path / "own" / "step=9.ckpt"


def test_a_new_run_moves_an_older_series_away_and_nothing_else(tmp_path):
    folder = tmp_path / "checkpoints"
    module = Foreign()
    module.save_hyperparameters({"of_a_class": Namespace()})  # torch reads no such file
    fit(tmp_path, module, SpacedCheckpoints(), logger=False)
    foreign = folder / "step=00000099.ckpt"
    torch.save({"state_dict": {}}, foreign)
    pair = SpacedCheckpoints(**EVERY), SpacedCheckpoints(also=[6], every=500)
    fit(tmp_path, Foreign(), *pair, logger=False, max_epochs=2)
    assert steps_in(folder) == [*range(9), 99]
    assert steps_in(folder / "older.1") == [0, 1, 2, 4, 8, 12]


def test_two_series_of_different_contents_need_two_folders(tmp_path):
    pair = SpacedCheckpoints(), SpacedCheckpoints(full=True)
    with pytest.raises(ValueError, match="`full` differs between two SpacedCheckpoints"):
        fit(tmp_path, Foreign(), *pair, logger=False)
    pair = SpacedCheckpoints(), SpacedCheckpoints(full=True, dirpath=tmp_path / "full")
    fit(tmp_path, Foreign(), *pair, logger=False)
    assert steps_in(tmp_path / "full") == steps_in(tmp_path / "checkpoints")


def test_a_checkpoint_callback_keeps_and_deletes_its_own_files(tmp_path):
    best = ModelCheckpoint(
        tmp_path / "checkpoints", "best-{step}", save_top_k=1, every_n_train_steps=2, save_last=True
    )
    fit(
        tmp_path,
        Foreign(),
        best,
        SpacedCheckpoints(**EVERY),
        logger=False,
        enable_checkpointing=True,
    )
    own = {path.name for path in (tmp_path / "checkpoints").iterdir()} - {
        f"step={step:08d}.ckpt" for step in range(13)
    }
    assert own == {"best-step=12.ckpt", "last.ckpt"}
    assert list(series(tmp_path)) == [*range(13)]


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lit_credit.runs.checkpoint_io.os.replace", fails)
        with pytest.raises(OSError, match="a checkpoint is not saved"):
            fit(tmp_path, Foreign(), SpacedCheckpoints(), logger=False)
    assert support.files(tmp_path) == []


# What it says


class Endless(IterableDataset):
    def __iter__(self):
        return iter(TensorDataset(*tensors(32)))


@pytest.mark.parametrize(
    ("make", "arguments", "options", "text"),
    [
        (Foreign, {}, {}, "6 files of N each, N in all, in DIR: steps 0, 1, 2, 4, ..., 512, then"),
        (Foreign, {}, {"max_steps": 5}, "5 files of"),
        (Foreign, {}, {"accumulate_grad_batches": 3}, "5 files of"),
        (updating(4), {"every": 5, "steps": "linear"}, {}, "10 files of"),
        (
            Foreign,
            {"until": 3, "also": [3]},
            {},
            "4 files of N each, N in all, in DIR: steps 0, 1, 2, 4, "
            "..., 512, then every 1000, also 3, and the last, if not after 3.",
        ),
        (Foreign, {"full": True}, {}, "6 files of N each, without the optimizer's state, N in all"),
        (Manual, {}, {}, "files of N each, in DIR: steps 0, 1, 2, 4"),
        (Manual, {}, {"max_steps": 8}, "up to 5 files of"),
    ],
)
def test_one_line_says_what_is_to_come(make, arguments, options, text, tmp_path, caplog):
    with caplog.at_level("INFO"):
        fit(tmp_path, make(), SpacedCheckpoints(**arguments), logger=False, **options)
    (said,) = (r.message for r in caplog.records if r.message.startswith("SpacedCheckpoints"))
    said = said.replace(str(tmp_path / "checkpoints"), "DIR")
    assert re.sub(r"\d+ kB|\d\.\d MB", "N", said).startswith(f"SpacedCheckpoints: {text}")
    count = re.search(r"(up to )?(\d+) files", said)
    assert count is None or int(count[2]) - bool(count[1]) == len(series(tmp_path))
