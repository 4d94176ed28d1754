"""The test at the end of ``lit-credit fit``."""

import csv

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.callbacks import EarlyStopping
from torch.utils.data import DataLoader, TensorDataset

from lit_credit.callbacks import GradientNorms
from lit_credit.cli import main, run
from lit_credit.cli.after_fit import has_test_data
from lit_credit.cli.sweep.run import _last_values
from lit_credit.datamodules import CharText, Digits
from lit_credit.runs.history import read_history
from lit_credit.studies.ngram import NGram, PowerUnif
from tests.support import events
from tests.support.processes import start_module
from tests.support.resumable import same

WORDS = ["fit", "--model=BP", "--model.task=Classification", "--data=Digits"]
WORDS += ["--model.net=ResidualMLP", "--model.net.in_features=64", "--model.net.depth=1"]
WORDS += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
WORDS += ["--trainer.enable_model_summary=false", "--trainer.limit_train_batches=4"]
HERE = "tests.cli.test_after_fit"


def fit(folder, *words, epochs=2):
    folders = [f"--trainer.default_root_dir={folder}", f"--trainer.max_epochs={epochs}"]
    return run([*WORDS, *folders, *words]).trainer


def run_of(folder):
    return folder / "BP" / "seed_42"


def rows_of_test(folder):
    return read_history(run_of(folder) / "test.jsonl")


def weights(folder):
    path = run_of(folder) / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("done")
    trainer = fit(folder, "--trainer.callbacks+=GradientNorms")
    return folder, trainer


def test_the_last_weights_are_tested_once_on_the_test_data(done):
    folder, trainer = done
    (row,) = rows_of_test(folder)
    assert (row["step"], row["epoch"], row["name"]) == (8, 2, "test")
    assert set(row["values"]) == {"test/loss", "test/accuracy"}
    x, y = next(iter(Digits(val_split=0).val_dataloader()))
    with torch.inference_mode():
        right = (trainer.lightning_module.net.eval()(x).argmax(1) == y).float().mean()
    assert row["values"]["test/accuracy"] == pytest.approx(float(right), abs=1e-6)
    same(trainer.lightning_module.state_dict(), weights(folder))


def test_the_metrics_of_the_fit_stand_beside_those_of_the_test(done):
    folder, trainer = done
    values = read_history(run_of(folder) / "metrics.jsonl")[-1]["values"]
    (row,) = rows_of_test(folder)
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert found.items() >= (values | row["values"]).items()
    last = _last_values(trainer)
    assert list(last)[:4] == ["val/loss", "val/accuracy", "test/loss", "test/accuracy"]
    assert "gradient/norm/L00" in last
    assert "train/loss" not in last


def test_diagnostics_do_not_measure_again(done):
    folder, trainer = done
    assert any(isinstance(callback, GradientNorms) for callback in trainer.callbacks)
    assert not (run_of(folder) / "test").exists()
    assert [row["epoch"] for row in read_history(run_of(folder) / "gradient_norms.jsonl")] == [
        *range(3)
    ]


def test_tensorboard_shows_it_at_the_last_step_and_hparams_once(done):
    folder, _ = done
    shown = events(run_of(folder))
    assert [point.step for point in shown.Scalars("test/accuracy")] == [8]
    assert [point.step for point in shown.Scalars("hp/accuracy")][-1] < 8
    assert len(shown.summary_metadata) > 0


def test_it_changes_no_weight_and_no_history(done, tmp_path):
    folder, _ = done
    fit(tmp_path, "--trainer.callbacks+=GradientNorms", "--test_after_fit=false")
    assert not (run_of(tmp_path) / "test.jsonl").exists()
    same(weights(tmp_path), weights(folder))
    for name in ("metrics.jsonl", "gradient_norms.jsonl"):
        assert (run_of(tmp_path) / name).read_bytes() == (run_of(folder) / name).read_bytes()


def test_a_repeated_or_resumed_run_has_one_row(tmp_path):
    fit(tmp_path)
    before = rows_of_test(tmp_path)
    fit(tmp_path, "--ckpt_path=last")
    assert rows_of_test(tmp_path) == before
    assert not (run_of(tmp_path) / "config-1.yaml").exists()
    fit(tmp_path, "--ckpt_path=last", epochs=3)
    assert [row["epoch"] for row in rows_of_test(tmp_path)] == [3]
    fit(tmp_path / "whole", epochs=3)
    assert rows_of_test(tmp_path) == rows_of_test(tmp_path / "whole")
    same(weights(tmp_path), weights(tmp_path / "whole"))


def test_a_resume_in_mid_epoch_ends_in_the_same_row(tmp_path):
    fit(tmp_path / "whole", epochs=3)
    saves = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=3"]
    saves += ["--trainer.callbacks.filename=mid"]
    fit(tmp_path, *saves, "--trainer.max_steps=7", epochs=3)
    mid = run_of(tmp_path) / "checkpoints" / "mid.ckpt"
    assert torch.load(mid, weights_only=True)["global_step"] == 6
    fit(tmp_path, *saves, f"--ckpt_path={mid}", epochs=3)
    assert rows_of_test(tmp_path) == rows_of_test(tmp_path / "whole")


def test_the_command_test_measures_the_same(tmp_path, capsys):
    fit(tmp_path)
    words = ["test", f"--config={run_of(tmp_path)}/config.yaml", "--ckpt_path=last"]
    before = (run_of(tmp_path) / "test.jsonl").read_bytes()
    run(words)
    assert (run_of(tmp_path) / "test" / "test.jsonl").read_bytes() == before
    assert (run_of(tmp_path) / "test.jsonl").read_bytes() == before


@pytest.mark.parametrize("words", [["--data.init_args.val_split=0"], ["--test_after_fit=false"]])
def test_no_test_data_or_no_wish_is_no_test(words, tmp_path):
    trainer = fit(tmp_path, *words, epochs=1)
    assert not (run_of(tmp_path) / "test.jsonl").exists()
    assert not [name for name in trainer.callback_metrics if name.startswith("test")]


def test_limited_and_trial_runs(tmp_path):
    trainer = fit(tmp_path, "--trainer.fast_dev_run=true")
    assert "test/loss" in trainer.callback_metrics
    assert not list(tmp_path.rglob("test.jsonl"))
    trainer = fit(tmp_path, "--trainer.limit_test_batches=0", epochs=1)
    assert "test/loss" not in trainer.callback_metrics
    assert not list(tmp_path.rglob("test.jsonl"))


class Stops(Callback):
    """Ends a fit by an error."""

    def on_train_batch_end(self, *args):
        raise ValueError("stopped")


def test_early_stopping_and_the_clock_are_ends_and_an_error_is_not(tmp_path):
    early = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss"]
    early += ["--trainer.callbacks.patience=1", "--trainer.callbacks.min_delta=9"]
    trainer = fit(tmp_path / "early", *early, epochs=9)
    assert any(isinstance(callback, EarlyStopping) for callback in trainer.callbacks)
    assert [row["epoch"] for row in rows_of_test(tmp_path / "early")] == [2]
    fit(tmp_path / "clock", "--trainer.max_time=00:00:00:00")
    assert [row["step"] for row in rows_of_test(tmp_path / "clock")] == [0]
    words = [*WORDS, f"--trainer.default_root_dir={tmp_path / 'error'}"]
    assert main([*words, f"--trainer.callbacks+={HERE}.Stops"]) == 1
    assert not list((tmp_path / "error").rglob("test.jsonl"))


# Data of others


class Foreign(LightningDataModule):
    """Rows in DataLoaders of torch, without data for testing."""

    def loader(self, n):
        x = torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(n))
        return DataLoader(TensorDataset(x, torch.arange(n) % 10), 16)

    def train_dataloader(self):
        return self.loader(64)

    def val_dataloader(self):
        return self.loader(32)


class Official(Foreign):
    """With several loaders for testing."""

    def test_dataloader(self):
        return {"id": self.loader(48), "ood": self.loader(16)}


class Unlabelled(Foreign):
    """With images to submit, which have no labels."""

    def test_dataloader(self):
        return DataLoader(TensorDataset(torch.randn(16, 1, 8, 8)), 16)


FEW = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


@FEW
def test_data_of_others_are_tested_if_they_have_test_data(tmp_path):
    fit(tmp_path / "without", f"--data={HERE}.Foreign", epochs=1)
    assert not list((tmp_path / "without").rglob("test.jsonl"))
    fit(tmp_path / "with", f"--data={HERE}.Official", epochs=1)
    (row,) = rows_of_test(tmp_path / "with")
    names = {f"test/{name}{end}" for name in ("loss", "accuracy") for end in ("", "/ood")}
    assert row["values"].keys() == names


@FEW
def test_a_test_that_fails_is_a_warning_and_the_fit_is_done(tmp_path, monkeypatch):
    with pytest.warns(UserWarning, match=r"the test at the end of fit failed: .*`--test_after_fit"):
        trainer = fit(tmp_path, f"--data={HERE}.Unlabelled", epochs=1)
    assert trainer.callback_metrics.keys() >= {"val/loss", "val/accuracy"}
    assert any(type(callback).__name__ == "MetricHistory" for callback in trainer.callbacks)
    assert not list(tmp_path.rglob("test.jsonl"))
    assert list(tmp_path.rglob("last.ckpt"))
    monkeypatch.setenv("LIT_CREDIT_TRACEBACK", "1")
    with pytest.raises(ValueError, match="Classification reads batches"):
        fit(tmp_path / "again", f"--data={HERE}.Unlabelled", epochs=1)


def test_who_has_test_data():
    assert has_test_data(Digits())
    assert not has_test_data(Digits(val_split=0))
    assert not has_test_data(CharText())
    assert not has_test_data(NGram(PowerUnif()))
    official = Official()
    assert has_test_data(official)
    official.validates_on_test_data = True
    assert not has_test_data(official)
    assert not has_test_data(LightningDataModule.from_datasets(train_dataset=[1], val_dataset=[2]))
    assert has_test_data(LightningDataModule.from_datasets(train_dataset=[1], test_dataset=[2]))


# Several runs, several processes


def test_a_sweep_has_a_column_for_each(tmp_path):
    (tmp_path / "grid.yaml").write_text("seed_everything: [1, 2]\n")
    (tmp_path / "base.yaml").write_text("trainer: {log_every_n_steps: 1}\n")
    words = ["sweep", f"--config={tmp_path}/base.yaml", f"--grid={tmp_path}/grid.yaml"]
    words += [f"--out={tmp_path}/t.csv", "--jobs=1"]
    assert main([*words, *WORDS[1:], "--trainer.max_epochs=1"]) == 0
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        (path,) = (tmp_path / "t").rglob(f"seed_{row['seed_everything']}/**/test.jsonl")
        (values,) = (line["values"] for line in read_history(path))
        assert float(row["test/accuracy"]) == pytest.approx(values["test/accuracy"], rel=1e-6)
        assert row["val/accuracy"]


@pytest.mark.slow
def test_two_processes_test_together(tmp_path):
    words = [*WORDS, "--trainer.max_epochs=1", "--trainer.devices=2", "--trainer.strategy=ddp"]
    process = start_module("lit_credit", *words, f"--trainer.default_root_dir={tmp_path / 'two'}")
    error = process.communicate()[1]
    assert process.returncode == 0, error
    fit(tmp_path / "one", epochs=1)
    (two,), (one,) = rows_of_test(tmp_path / "two"), rows_of_test(tmp_path / "one")
    assert two["values"] == pytest.approx(one["values"], rel=1e-4)
    assert two["step"] == one["step"]
