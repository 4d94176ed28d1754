"""What a command loads, and what it answers before that."""

import subprocess
import sys

import pytest

from lit_credit.cli import main
from lit_credit.cli.arguments import ArgumentsError
from lit_credit.cli.first_words import COMMANDS
from lit_credit.cli.fit import LitCreditCLI, run


def printed(code, *, fails=False):
    command = [sys.executable, "-W", "error", "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert fails or ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr


def loaded(words, packages):
    """Which packages are loaded when the command line has answered."""
    return printed(
        "import io, sys\n"
        "from contextlib import redirect_stderr, redirect_stdout, suppress\n"
        "from lit_credit.cli import main\n"
        "quiet = redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO())\n"
        f"with quiet[0], quiet[1], suppress(SystemExit):\n    main({words!r})\n"
        f"print([name for name in {packages!r} if name in sys.modules])"
    )


@pytest.mark.parametrize(
    "words", [["--help"], ["fti"], [], ["fit", "--config", "nowhere.yaml"]], ids=" ".join
)
def test_first_words_are_answered_without_torch(words):
    assert loaded(words, ("torch", "lightning")) == "[]\n"


def test_a_wrong_run_is_refused_without_lightning():
    words = ["compare", "nowhere", "--out", "out"]
    assert loaded(words, ("lightning", "matplotlib")) == "[]\n"


def tell(answer, words):
    """Print what the command line prints; Python is given an error instead of its line."""
    try:
        assert answer(words) == 2
    except ArgumentsError as error:
        print(error.line, file=sys.stderr)
    except SystemExit:
        pass


@pytest.mark.parametrize("words", [["--help"], ["fti"], []], ids=" ".join)
def test_the_answer_is_that_of_the_whole_parser(words, capsys):
    for answer in (main, run):
        tell(answer, words)
    out, err = capsys.readouterr()
    for text in (out, err):
        assert text[: len(text) // 2] == text[len(text) // 2 :]
    assert set(COMMANDS) == set(LitCreditCLI.subcommands())


def test_the_whole_parser_refuses_a_missing_file_in_the_same_words(capsys, tmp_path):
    words = ["fit", "--config", str(tmp_path / "nowhere.yaml")]
    for answer in (main, run):
        tell(answer, words)
    first, second = capsys.readouterr().err.splitlines()
    assert first == second
    assert "File does not exist" in first
