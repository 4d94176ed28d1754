"""Ctrl-C and SIGTERM: an exit code, a line, and a run that can be resumed to the bit."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from lit_credit.cli import main
from lit_credit.utils.history import read_history
from tests.faults.helpers import same

WORDS = ["fit", "--model=BP", "--model.task=Classification", "--data=Digits"]
WORDS += ["--model.net=ResidualMLP", "--model.net.in_features=64", "--model.net.depth=2"]
WORDS += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
EPOCHS = 400


def words(folder, epochs):
    return [*WORDS, f"--trainer.default_root_dir={folder}", f"--trainer.max_epochs={epochs}"]


@pytest.mark.parametrize(("number", "code", "name"), [(2, 130, "Ctrl-C"), (15, 143, "SIGTERM")])
def test_a_signal_ends_a_run_that_can_be_resumed(number, code, name, tmp_path):
    run = tmp_path / "BP" / "seed_42"
    process = subprocess.Popen(
        [sys.executable, "-m", "lit_credit", *words(tmp_path, EPOCHS)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not (run / "checkpoints" / "last.ckpt").exists():
        time.sleep(0.02)
    process.send_signal(number)
    error = process.communicate()[1]
    assert process.returncode == code
    last = error.splitlines()[-1]
    assert last == (
        f"lit-credit: stopped by {name}. The same command with `--ckpt_path last` goes on."
    )
    assert "Traceback" not in error

    rows = read_history(run / "metrics.jsonl")
    taken = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] + 1
    assert taken in (len(rows) - 1, len(rows))
    assert taken < EPOCHS
    assert not list(run.rglob("*.partial"))
    # In this process; the one that was stopped is the other side of the comparison.
    assert main([*words(tmp_path, taken + 1), "--ckpt_path=last"]) == 0
    assert main(words(tmp_path / "whole", taken + 1)) == 0
    runs = [run, tmp_path / "whole" / "BP" / "seed_42"]
    paths = [folder / "checkpoints" / "last.ckpt" for folder in runs]
    same(*(torch.load(path, weights_only=True)["state_dict"] for path in paths))
    texts = [(folder / "metrics.jsonl").read_text() for folder in runs]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("command", ["fit", "compare"])
def test_ctrl_c_before_training_is_no_traceback(command, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lit_credit.cli.run", stop)
    monkeypatch.setattr("lit_credit.compare.main", stop)
    assert main([command, "x"]) == 128 + signal.SIGINT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lit-credit: stopped by Ctrl-C.")
    assert ("--ckpt_path" in line) == (command == "fit")
