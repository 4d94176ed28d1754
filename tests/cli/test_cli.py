"""The command line: folders, overrides, errors."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback

from lit_credit.cli import main
from lit_credit.runs.history import read_history

BP = ["fit", "--config", "configs/residual_explosion/bp.yaml", "--trainer.accelerator", "cpu"]
SHORT = ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]


def test_default_root_dir_moves_everything_that_a_run_writes(tmp_path, monkeypatch):
    """Nothing is written into the working directory, and nothing outside of the run's folder."""
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    elsewhere.mkdir()
    config = str(Path("configs/residual_explosion/bp.yaml").resolve())
    monkeypatch.chdir(elsewhere)
    args = ["fit", "--config", config, "--trainer.accelerator", "cpu", *SHORT]
    assert main([*args, "--trainer.default_root_dir", str(root), "--seed_everything", "7"]) == 0
    run = root / "BP" / "seed_7"
    written = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    events = {name for name in written if name.startswith("events.out")}
    assert written - events == {
        "checkpoints/last.ckpt",
        "config.yaml",
        "hparams.yaml",
        "metrics.jsonl",
        *(f"{stem}.jsonl" for stem in DIAGNOSTICS),
        *(f"figures/{stem}.png" for stem in DIAGNOSTICS),
    }
    assert len(events) == 1
    assert list(elsewhere.iterdir()) == []
    assert [path.name for path in root.iterdir()] == ["BP"]


DIAGNOSTICS = ["residual_norms", "gradient_norms", "credit_alignment", "scale_stability"]


def test_what_all_runs_share_can_be_overridden(tmp_path):
    csv = "lightning.pytorch.loggers.CSVLogger"
    args = [*BP, *SHORT, "--trainer.default_root_dir", str(tmp_path)]
    args += ["--trainer.logger", csv, "--trainer.logger.save_dir", str(tmp_path / "csv")]
    args += ["--trainer.callbacks", "MetricHistory"]
    assert main(args) == 0
    (folder,) = (tmp_path / "csv").rglob("version_0")
    assert {path.name for path in folder.iterdir()} >= {"metrics.csv", "metrics.jsonl"}
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["trainer"]["callbacks"]["class_path"] == "lit_credit.callbacks.MetricHistory"
    assert not list(tmp_path.rglob("last.ckpt"))


def tenfold(module, batch):
    return 10 * module.batch_loss(batch)


def test_a_loss_is_given_by_its_import_path(run, tmp_path):
    args = [*BP, *SHORT, "--trainer.default_root_dir", str(tmp_path), "--trainer.callbacks"]
    args += ["GradientNorms", "--trainer.callbacks.loss", "tests.cli.test_cli.tenfold"]
    assert main(args) == 0
    moved = tmp_path / "BP" / "seed_42"
    first, times_ten = (read_history(x / "gradient_norms.jsonl")[0]["values"] for x in (run, moved))
    assert times_ten == pytest.approx({tag: 10 * value for tag, value in first.items()})
    assert "loss: tests.cli.test_cli.tenfold" in (moved / "config.yaml").read_text()


def test_what_does_not_train_leaves_the_files_of_the_run_alone(tmp_path):
    args = [*BP, *SHORT, "--trainer.default_root_dir", str(tmp_path)]
    assert main(args) == 0
    run = tmp_path / "BP" / "seed_42"
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    for command in ("validate", "test", "predict"):
        words = [word for word in args if word not in ("--trainer.max_epochs", "1")]
        assert main([command, *words[1:], "--ckpt_path", "last"]) == 0
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    assert main([*BP, *SHORT, "--trainer.default_root_dir", str(root)]) == 0
    return root / "BP" / "seed_42"


def test_a_saved_configuration_runs_again_elsewhere(run, tmp_path):
    args = ["fit", "--config", str(run / "config.yaml"), "--seed_everything", "7"]
    assert main([*args, "--trainer.default_root_dir", str(tmp_path)]) == 0
    assert (tmp_path / "BP" / "seed_7" / "config.yaml").exists()


def test_only_a_checkpoint_of_its_own_resumes_a_run(run, tmp_path, capsys):
    """With that of another run its histories would be replaced by those of the other."""
    other = tmp_path / "last.ckpt"
    other.write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())
    args = [*BP, *SHORT, "--trainer.default_root_dir", str(run.parents[1])]
    before = (run / "residual_norms.jsonl").read_bytes()
    assert main([*args, "--ckpt_path", str(other)]) == 1
    assert "holds a run already" in capsys.readouterr().err
    assert (run / "residual_norms.jsonl").read_bytes() == before
    for own in ("last", str(run / "checkpoints" / "last.ckpt")):
        assert main([*args, "--ckpt_path", own]) == 0


class StopsInEpochTwo(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 2:
            raise ValueError("stopped in epoch 2")


def test_a_run_that_breaks_off_goes_on_from_its_last_whole_epoch(tmp_path, capsys):
    args = ["fit", "--model=BP", "--model.task=Classification", "--data=Digits"]
    args += ["--model.net=ResidualMLP", "--model.net.in_features=64", "--model.net.depth=2"]
    args += ["--model.optimizer=torch.optim.Adam", "--model.optimizer.lr=0.01"]
    args += ["--trainer.accelerator=cpu", "--trainer.max_epochs=4"]
    args += ["--trainer.limit_train_batches=2", "--trainer.enable_progress_bar=false"]
    broken = ["--trainer.default_root_dir", str(tmp_path / "broken")]
    stops = ["--trainer.callbacks+", "tests.cli.test_cli.StopsInEpochTwo"]
    assert main([*args, *broken, *stops]) == 1
    assert "stopped in epoch 2" in capsys.readouterr().err
    saved = tmp_path / "broken" / "BP" / "seed_42" / "checkpoints" / "last.ckpt"
    assert torch.load(saved)["epoch"] == 1
    assert main([*args, *broken, "--ckpt_path", "last"]) == 0
    assert main([*args, "--trainer.default_root_dir", str(tmp_path / "whole")]) == 0
    assert [path.name for path in saved.parent.iterdir()] == ["last.ckpt"]
    states = [torch.load(path)["state_dict"] for path in tmp_path.rglob("last.ckpt")]
    assert len(states) == 2
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_a_run_without_a_logger_is_not_overwritten(tmp_path, capsys):
    args = [*BP, *SHORT, "--trainer.default_root_dir", str(tmp_path), "--trainer.logger", "false"]
    assert main(args) == 0
    before = (tmp_path / "config.yaml").read_bytes()
    assert main([*args, "--seed_everything", "7"]) == 1
    assert "holds a run already" in capsys.readouterr().err
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_a_slip_that_the_first_measurement_shows_leaves_no_run(tmp_path, capsys):
    args = [*BP, *SHORT, "--trainer.default_root_dir", str(tmp_path)]
    slip = ["--trainer.callbacks", "GradientNorms", "--trainer.callbacks.n_samples", "5000"]
    assert main([*args, *slip]) == 1
    assert "at most 360" in capsys.readouterr().err
    assert main([*args, "--trainer.callbacks", "GradientNorms"]) == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--model.init_args.net.init_args.in_features", "63"], 1, "has 64 numbers"),
        (["--model.init_args.units", "[nothing]"], 1, "'nothing' matches nothing"),
        (["--trainer.gradient_clip_val", "1.0"], 1, "`clip_norm`"),
        (["--model.class_path", "Backprop"], 2, "Backprop"),
        (["--data.init_args.batch_size", "large"], 2, "batch_size"),
    ],
)
def test_a_slip_gets_a_short_message_and_an_exit_code(words, code, message, tmp_path, capsys):
    args = [*BP, *SHORT, "--trainer.default_root_dir", str(tmp_path), *words]
    try:
        found = main(args)
    except SystemExit as exit_:
        found = exit_.code
    error = capsys.readouterr().err
    assert found == code
    assert message in error
    assert "Traceback" not in error
    if code == 1:  # ours, not jsonargparse's
        assert len(error.split("error: ")[-1].splitlines()) == 1


def test_offline_data_name_the_embedded_default(tmp_path, capsys):
    args = ["fit", "--config", "configs/residual_explosion/bp_cifar10.yaml", *SHORT]
    args += ["--trainer.default_root_dir", str(tmp_path), "--trainer.accelerator", "cpu"]
    args += ["--data.init_args.root", str(tmp_path / "no"), "--data.init_args.download", "false"]
    assert main(args) == 1
    error = capsys.readouterr().err
    for part in ("CIFAR10", str(tmp_path / "no"), "Digits"):
        assert part in error


def test_the_module_is_the_command():
    words = [sys.executable, "-m", "lit_credit", "compare", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "--out" in done.stdout


@pytest.mark.parametrize("module", ["lit_credit", "lit_credit.cli.sweep.executors"])
def test_importing_the_package_is_cheap(module):
    code = f"import {module}, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
