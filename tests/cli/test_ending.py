"""The last lines of ``lit-credit fit``."""

import re
import shlex
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from lit_credit.callbacks import MetricHistory
from lit_credit.cli import main
from lit_credit.cli.ending import ending
from lit_credit.models import MLP
from lit_credit.rules import BP
from lit_credit.runs.history import read_history
from lit_credit.tasks import Classification

WORDS = ["--trainer.max_epochs", "4", "--trainer.accelerator", "cpu"]
WORDS += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]


def ended(capsys, root, *words):
    args = ["fit", "--config", "configs/rules/dfa.yaml", "--trainer.default_root_dir", str(root)]
    assert main([*args, *WORDS, "--data.init_args.val_split", "0.1", *words]) == 0
    return capsys.readouterr().out


def test_fit_ends_with_folder_metrics_and_commands_that_run(tmp_path, capsys):
    root = tmp_path / "my runs"
    out = ended(capsys, root).partition("Run:")[2]
    folder = root / "DFA" / "seed_42"
    assert out.splitlines()[0].strip() == str(folder)
    rows = [row["values"]["val/accuracy"] for row in read_history(folder / "metrics.jsonl")]
    tested = read_history(folder / "test.jsonl")[0]["values"]
    assert f"val/accuracy {rows[-1]:.4g}" in out
    assert f"test/accuracy {tested['test/accuracy']:.4g}, test/loss" in out
    assert f"tensorboard --logdir '{root}'" in out
    for command in re.findall(r"lit-credit (.+)", out):
        assert main(shlex.split(command)) == 0


def test_a_run_without_files_ends_without_lines(tmp_path, capsys):
    assert "Run:" not in ended(capsys, tmp_path, "--trainer.fast_dev_run", "true")


@pytest.fixture
def rule():
    return BP(MLP(2, [2], 2), Classification(2))


def trainer(folder, values, **options):
    history = MetricHistory()
    for epoch, (accuracy, loss) in enumerate(values):
        history.history.append(epoch, epoch, "m", {"val/accuracy": accuracy, "val/loss": loss})
    (folder / "config.yaml").touch()
    return Trainer(
        default_root_dir=folder, logger=False, callbacks=[history], accelerator="cpu", **options
    )


def test_the_best_value_is_that_of_the_direction(tmp_path, rule):
    values = [(0.1, 3.0), (0.9, 1.0), (float("nan"), 0.5), (0.8, 2.0)]
    text = ending(trainer(tmp_path, values), rule)
    assert "val/accuracy 0.8 (best 0.9 at epoch 1)" in text
    assert "val/loss 2 (best 0.5 at epoch 2)" in text
    assert f"Run:     {tmp_path}\n" in text
    assert text.endswith("config.yaml --trainer.callbacks+ ResidualNorms")


def test_the_last_value_stands_alone_if_it_is_the_best(tmp_path, rule):
    text = ending(trainer(tmp_path, [(0.1, 3.0), (0.9, 1.0)]), rule)
    assert "Metrics: val/accuracy 0.9, val/loss 1\n" in text


def test_other_processes_are_silent(tmp_path, rule, monkeypatch):
    made = trainer(tmp_path, [(0.1, 3.0)])
    monkeypatch.setattr(type(made), "is_global_zero", False)
    assert ending(made, rule) == ""


def test_a_folder_without_a_run_is_not_named(tmp_path, rule):
    made = trainer(tmp_path, [(0.1, 3.0)])
    Path(tmp_path, "config.yaml").unlink()
    assert ending(made, rule) == ""


def test_a_diverged_run_is_told(tmp_path, capsys):
    words = ["--model.init_args.optimizer.init_args.lr", "1e30", "--trainer.max_epochs", "1"]
    out = ended(capsys, tmp_path, *words)
    assert "Note:    the run diverged: train/loss, val/loss, test/loss not finite." in out
    assert "--trainer.callbacks+ FiniteGuard" in out


def test_metrics_that_were_added_to_the_task_are_shown(tmp_path, rule):
    made = trainer(tmp_path, [(0.1, 3.0)])
    made.callbacks[0].history.rows[-1]["values"]["val/top/5"] = 0.5
    assert "val/accuracy 0.1, val/loss 3, val/top/5 0.5\n" in ending(made, rule)


def test_a_validation_without_a_checkpoint_says_what_it_measures(tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    ended(capsys, tmp_path, "--trainer.max_epochs", "1")
    assert "No --ckpt_path" not in caplog.text
    config = ["--config", str(tmp_path / "DFA" / "seed_42" / "config.yaml")]
    assert main(["validate", *config]) == 0
    assert "No --ckpt_path: validate takes the initial weights" in caplog.text
    caplog.clear()
    assert main(["validate", *config, "--ckpt_path", "last"]) == 0
    assert "No --ckpt_path" not in caplog.text
