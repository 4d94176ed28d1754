"""``lit-credit demo``."""

import re
from pathlib import Path

import pytest

from lit_credit.cli import demo, main

SHORT = ["--seeds", "7", "--jobs", "1", "--trainer.max_epochs", "1"]


def test_the_demo_ends_in_a_table_a_figure_and_tensorboard(tmp_path, monkeypatch, capfd):
    """And the same command again trains nothing."""
    monkeypatch.chdir(tmp_path)
    assert main(["demo", *SHORT]) == 0
    out = capfd.readouterr().out
    for rule in ("bp", "fa", "dfa"):
        assert f"  {rule}, seed 7: training\n  {rule}, seed 7: done" in out
    table = re.findall(r"^(BP|FA|DFA) +1 ", out, re.MULTILINE)
    assert table == ["BP", "FA", "DFA"]
    figure, csv, board = out.splitlines()[-3:]
    assert Path(figure.split()[1]).is_file()
    assert Path(csv.split()[1]).is_file()
    assert board.endswith("--logdir runs/demo")
    assert main(["demo", *SHORT]) == 0
    assert "training" not in capfd.readouterr().out


def test_a_run_that_fails_ends_the_demo(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", *SHORT, "--model.init_args.net.init_args.depth", "-1"]) == 1
    out, err = capfd.readouterr()
    assert "depth" in err
    assert "bp, seed 7: failed, see runs/demo/bp.7.log" in err
    assert "fa, seed 7: training" not in out
    assert not list(Path("runs/demo").glob("*.done"))


def test_other_words_train_again(tmp_path):
    run = demo._Run("bp", 7, tmp_path, ["--trainer.max_epochs", "1"])
    run.done.write_text("--trainer.max_epochs 1")
    assert run.is_done
    assert not demo._Run("bp", 7, tmp_path, []).is_done
    run.done.write_text("")  # as the Makefile of before wrote it
    assert demo._Run("bp", 7, tmp_path, []).is_done


@pytest.mark.parametrize(
    ("words", "reason"), [(["--jobs", "0"], "1 or more"), (["--out", "f"], "no folder")]
)
def test_wrong_arguments(words, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("f").touch()
    assert main(["demo", *words]) == 2
    assert reason in capsys.readouterr().err
