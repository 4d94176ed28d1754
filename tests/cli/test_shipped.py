"""Configurations that ship with lit_credit are found by their names."""

from pathlib import Path

import pytest

from lit_credit.cli import main
from lit_credit.cli.shipped import shipped_configs, shipped_file, shipped_names, with_shipped
from lit_credit.runs.run_folder import find_runs

DFA = Path("configs/residual_explosion/dfa.yaml").resolve()


@pytest.mark.parametrize(
    "name", ["residual_explosion/dfa.yaml", "configs/residual_explosion/dfa.yaml"]
)
@pytest.mark.parametrize("words", ["--config {}", "-c {}", "--config={}", "--grid {}"])
def test_a_name_is_the_shipped_file(name, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = words.format(name).split()
    found = with_shipped(["fit", *words, "--out", name])
    assert found == ["fit", *(word.replace(name, str(DFA)) for word in words), "--out", name]
    error = capsys.readouterr().err
    assert f" {name}: {DFA}, which ships with lit_credit." in error


def test_a_file_of_ones_own_goes_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own = Path("residual_explosion/dfa.yaml")
    own.parent.mkdir()
    own.touch()
    words = ["fit", "--config", str(own)]
    assert with_shipped(words) == words
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "name", ["nowhere.yaml", "../configs/rules/dfa.yaml", "/rules/dfa.yaml", "rules", "{model: BP}"]
)
def test_other_words_stay(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert with_shipped(["fit", "--config", name]) == ["fit", "--config", name]


def test_the_names_are_those_of_the_files():
    assert shipped_configs() == Path("configs").resolve()
    names = shipped_names()
    assert len(names) == len(list(Path("configs").rglob("*.yaml")))
    assert all(shipped_file(name) for name in names)


def test_a_shipped_configuration_runs_from_anywhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["fit", "--config", "rules/dfa.yaml", "--trainer.max_epochs", "1"]
    words += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    assert main([*words, "--trainer.default_root_dir", "here"]) == 0
    assert len(find_runs("here")) == 1
