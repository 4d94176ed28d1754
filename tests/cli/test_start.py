"""What a command loads, and what it answers before that."""

import subprocess
import sys

import pytest

from lit_credit.cli import main
from lit_credit.cli.arguments import ArgumentsError
from lit_credit.cli.first_words import COMMANDS
from lit_credit.cli.fit import LitCreditCLI, run

SLOW = ("torch._dynamo", "torchvision", "transformers", "scipy", "sklearn")


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


def test_help_of_fit_loads_nothing_that_it_does_not_say():
    assert loaded(["fit", "--help"], SLOW) == "[]\n"


def tell(answer, words):
    """Print what the command line prints; Python is given an error instead of its line."""
    try:
        assert answer(words) == 2
    except ArgumentsError as error:
        print(error.line, file=sys.stderr)
    except SystemExit as stop:
        assert stop.code == 0


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


HELD = """
import sys, types
from lit_credit.cli.held_imports import hold_imports
{hold}
import lightning.pytorch, torchmetrics, torchmetrics.functional
for module in torchmetrics, torchmetrics.functional:
    found = {{name: getattr(module, name) for name in dir(module)}}
    print([
        (name, value.__module__, value.__qualname__)
        for name, value in sorted(found.items())
        if isinstance(value, (type, types.FunctionType)) and name[:2] != "__"
    ])
from torchmetrics.image import PeakSignalNoiseRatio
from torchmetrics.functional.text import bleu_score
print(torchmetrics.text.BLEUScore, sorted(torchmetrics.__all__))
"""


def test_every_name_of_torchmetrics_is_there_and_the_same():
    held, plain = printed(HELD.format(hold="hold_imports()")), printed(HELD.format(hold=""))
    assert held == plain
    assert "BLEUScore" in held


COMPILED = """
from lit_credit.cli.held_imports import hold_imports
hold_imports()
import sys
import lightning.pytorch
from lightning.fabric.wrappers import OptimizedModule
from lightning.pytorch.utilities.compile import to_uncompiled
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
module = BoringModel()
assert not isinstance(module, OptimizedModule)
assert "torch._dynamo" not in sys.modules
compiled = torch.compile(module)
assert isinstance(compiled, OptimizedModule)
assert to_uncompiled(compiled) is module
assert "torch._dynamo" in sys.modules
print("as ever")
"""


def test_lightning_knows_compiled_modules():
    assert printed(COMPILED) == "as ever\n"
