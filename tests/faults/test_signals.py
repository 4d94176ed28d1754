"""Ctrl-C and SIGTERM: an exit code, a line, and a run that can be resumed to the bit."""

import signal

import pytest
import torch

from lit_credit.cli import main
from lit_credit.runs.history import read_history
from tests.support.processes import start_module, wait_until
from tests.support.resumable import same

WORDS = ["fit", "--model=BP", "--model.task=Classification", "--data=Digits"]
WORDS += ["--model.net=ResidualMLP", "--model.net.in_features=64", "--model.net.depth=2"]
WORDS += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
EPOCHS = 5


def words(folder, hold, epochs=EPOCHS):
    """Of a run that waits in the middle of its third epoch while ``hold`` exists."""
    held = [
        "--trainer.callbacks+=tests.cli.sweep.callbacks.Held",
        f"--trainer.callbacks.hold={hold}",
    ]
    held += ["--trainer.callbacks.batch=3"]
    folders = [f"--trainer.default_root_dir={folder}", f"--trainer.max_epochs={epochs}"]
    return [*WORDS, *folders, *held]


@pytest.mark.few(1)
@pytest.mark.parametrize(("number", "code", "name"), [(2, 130, "Ctrl-C"), (15, 143, "SIGTERM")])
def test_a_signal_ends_a_run_that_can_be_resumed(number, code, name, tmp_path):
    run, hold = tmp_path / "BP" / "seed_42", tmp_path / "hold"
    hold.touch()
    process = start_module("lit_credit", *words(tmp_path, hold))
    wait_until((tmp_path / "held").exists, process)
    process.send_signal(number)
    error = process.communicate()[1]
    assert process.returncode == code
    last = error.splitlines()[-1]
    assert last == (
        f"lit-credit: stopped by {name}. The same command with `--ckpt_path last` goes on."
    )
    assert "Traceback" not in error

    rows = read_history(run / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 1
    assert not list(run.rglob("*.partial"))
    assert not (run / "test.jsonl").exists()
    hold.unlink()
    # In this process; the one that was stopped is the other side of the comparison.
    assert main([*words(tmp_path, hold), "--ckpt_path=last"]) == 0
    assert main(words(tmp_path / "whole", hold)) == 0
    runs = [run, tmp_path / "whole" / "BP" / "seed_42"]
    paths = [folder / "checkpoints" / "last.ckpt" for folder in runs]
    same(*(torch.load(path, weights_only=True)["state_dict"] for path in paths))
    for name in ("metrics.jsonl", "test.jsonl"):
        texts = [(folder / name).read_text() for folder in runs]
        assert texts[0] == texts[1]


@pytest.mark.parametrize("command", ["fit", "compare"])
def test_ctrl_c_before_training_is_no_traceback(command, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lit_credit.cli.fit.run", stop)
    monkeypatch.setattr("lit_credit.cli.compare.main", stop)
    assert main([command, "x"]) == 128 + signal.SIGINT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lit-credit: stopped by Ctrl-C.")
    assert ("--ckpt_path" in line) == (command == "fit")
