"""What a shell completes after ``lit-credit``."""

import shutil
import subprocess

import pytest

from lit_credit.cli import main
from lit_credit.cli.commands import COMMANDS
from lit_credit.cli.completion import script


def completed(words, folder, shell="bash"):
    """What the function of the shell offers for the last word, in a folder."""
    asked = " ".join(f"'{word}'" for word in ["lit-credit", *words])
    code = (
        f"{script(shell)}\nCOMP_WORDS=({asked}); COMP_CWORD={len(words)}\n"
        '_lit_credit; for word in "${COMPREPLY[@]}"; do printf "%s\\n" "$word"; done'
    )
    if shell == "zsh":
        code = f"{script(shell)}\nemulate sh\n" + code.partition(script(shell))[2]
    ran = subprocess.run([shell, "-c", code], cwd=folder, capture_output=True, text=True)
    assert ran.stderr == ""
    # zsh itself keeps the words that begin as the last one does.
    return [
        word for word in ran.stdout.splitlines() if shell == "bash" or word.startswith(words[-1])
    ]


@pytest.fixture(params=["bash", "zsh"])
def shell(request):
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


def test_commands(shell, tmp_path):
    assert completed([""], tmp_path, shell) == [*COMMANDS, "--help", "--version"]
    assert completed(["comp"], tmp_path, shell) == ["compare", "completion"]


def test_options(shell, tmp_path):
    found = completed(["fit", "--trainer.max"], tmp_path, shell)
    assert found == ["--trainer.max_epochs", "--trainer.max_steps", "--trainer.max_time"]
    assert completed(["compare", "runs", "--b"], tmp_path, shell) == ["--by", "--baseline"]
    assert completed(["compare", "--config", "x", "--mod"], tmp_path, shell) == []


def test_values(shell, tmp_path):
    assert completed(["compare", "--format", "m"], tmp_path, shell) == ["markdown"]
    assert completed(["sweep", "--executor", "r"], tmp_path, shell) == ["ray"]
    assert completed(["fit", "--on_resume", ""], tmp_path, shell)[0] == "refuse"
    assert completed(["benchmark", "--suite", "di"], tmp_path, shell) == ["digits"]
    assert completed(["completion", ""], tmp_path, shell) == ["bash", "zsh"]


@pytest.mark.parametrize("form", [["--config", "res"], ["--config", "=", "res"], ["-c", "res"]])
def test_configurations_are_those_of_the_folder_and_those_that_ship(form, shell, tmp_path):
    (tmp_path / "residual mine.yaml").touch()
    found = completed(["fit", *form], tmp_path, shell)
    assert found[0] == "residual mine.yaml"
    assert "residual_explosion/dfa.yaml" in found
    assert not any("grid" in name for name in found)
    grids = completed(["sweep", "--grid", "ngram_memorization/heads"], tmp_path, shell)
    assert grids == ["ngram_memorization/heads.grid.yaml"]


def test_files_are_left_to_the_shell(shell, tmp_path):
    assert completed(["compare", "ru"], tmp_path, shell) == []
    assert "complete -o default -F _lit_credit lit-credit" in script(shell)


def test_an_unknown_shell_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["completion", "tcsh"])
    assert "choose from" in capsys.readouterr().err
