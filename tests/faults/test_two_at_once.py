"""Two processes and one folder: the second is refused, and a killed one is not in the way."""

import os
import subprocess
import sys

import pytest
from lightning.pytorch import Trainer

from lit_credit.cli import main
from lit_credit.runs.lock import hold_folder

WORDS = ["fit", "--model=BP", "--model.task=Classification", "--data=Digits"]
WORDS += ["--model.net=ResidualMLP", "--model.net.in_features=64", "--model.net.depth=2"]
WORDS += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
WORDS += ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]


def start(folder, *more):
    """A run that has begun, and has written nothing."""
    words = [*WORDS, f"--trainer.default_root_dir={folder}", *more]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "lit_credit",
            *words,
            "--trainer.callbacks+=tests.faults.waiting.Waiting",
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begun\n"
    return process


def again(folder, *more):
    return main([*WORDS, f"--trainer.default_root_dir={folder}", *more])


def files(folder):
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_taken_at_the_start_until_its_process_has_ended(tmp_path, capsys):
    run = tmp_path / "BP" / "seed_42"
    with start(tmp_path) as process:
        before = files(tmp_path)
        assert "seed_42.lock" in before
        assert "config.yaml" not in before
        for more in ([], ["--ckpt_path=last"]):
            assert again(tmp_path, *more) == 1
            error = capsys.readouterr().err.splitlines()[-1]
            assert error.startswith(f"lit-credit: error: {run} is in use by process {process.pid} ")
        assert files(tmp_path) == before
        # What writes nothing there, or elsewhere, is not concerned.
        assert again(tmp_path, "--trainer.fast_dev_run=true") == 0
        assert again(tmp_path, "--seed_everything=7") == 0
        process.kill()
    assert "seed_42.lock" in files(tmp_path)
    assert again(tmp_path) == 0
    assert (run / "config.yaml").exists()
    assert not list(tmp_path.rglob("*.lock"))
    assert again(tmp_path) == 1
    assert "holds a run already" in capsys.readouterr().err


@pytest.mark.parametrize("more", ["--model.net.in_features=63", "--ckpt_path=absent.ckpt"])
def test_a_refused_start_gives_the_folder_back(more, tmp_path):
    assert again(tmp_path, more) == 1
    assert not files(tmp_path) & {"config.yaml", "seed_42.lock"}
    assert again(tmp_path) == 0


def test_without_a_logger_the_root_is_taken(tmp_path, capsys):
    with hold_folder(tmp_path / "root"):
        assert again(tmp_path / "root", "--trainer.logger=false") == 1
    assert f"{tmp_path / 'root'} is in use by this process" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_further_ranks_are_not_locked_out_by_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "is_global_zero", False)
    with hold_folder(tmp_path / "BP" / "seed_42"):
        assert again(tmp_path) == 0
