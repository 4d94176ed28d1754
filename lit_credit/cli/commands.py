"""The commands of ``lit-credit``: a line about each, and the module that runs it."""

import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import lit_credit
from lit_credit.cli.arguments import ArgumentsError, ShortErrorArguments

__all__ = [
    "COMMANDS",
    "DESCRIPTION",
    "Command",
    "is_of_trainer",
    "listing",
    "main_of",
    "parser_of",
    "unknown",
    "versions",
]


class Command(NamedTuple):
    """A command.

    Attributes:
        text: what it does, in a line.
        module: module below ``lit_credit.cli`` with its ``main`` and ``parser``; empty for the
            methods of a Trainer, whose parser Lightning builds.
    """

    text: str
    module: str = ""


COMMANDS = {
    "demo": Command("Train BP, FA and DFA on digits and compare them; needs no files.", "demo"),
    "fit": Command("Train a net by a learning rule, as a configuration says."),
    "validate": Command("Measure a checkpoint on the validation data."),
    "test": Command("Measure a checkpoint on the test data."),
    "predict": Command("Compute the outputs of a checkpoint on the data."),
    "diagnose": Command("Measure the diagnostics of a configuration over checkpoints."),
    "compare": Command("Compare runs: a table, differences to a baseline, figures.", "compare"),
    "sweep": Command("Run every point of a grid with every seed.", "sweep.command"),
    "benchmark": Command(
        "Tune rules under one budget and compare them; takes half an hour.", "benchmark.command"
    ),
    "clean": Command("List or delete files that runs no longer need.", "clean"),
    "completion": Command(
        "Print the completion of commands and options for a shell.", "completion"
    ),
}

_USAGE = "usage: lit-credit COMMAND [options]"
DESCRIPTION = "Experiments on credit assignment in neural networks."
_FURTHER = """  lit-credit COMMAND --help   options of a command
  lit-credit --version        versions of lit_credit, PyTorch and Lightning"""


def is_of_trainer(word: str) -> bool:
    """Whether a command is a method of a Trainer, and so needs PyTorch and Lightning.

    Example:
        >>> is_of_trainer("fit"), is_of_trainer("compare")
        (True, False)
    """
    return word in COMMANDS and not COMMANDS[word].module


def main_of(command: str) -> Callable[[Sequence[str]], int]:
    """The function that runs a command that is not a method of a Trainer."""
    module = import_module(f"lit_credit.cli.{COMMANDS[command].module}")
    main: Callable[[Sequence[str]], int] = module.main
    return main


def parser_of(command: str) -> ShortErrorArguments:
    """The parser of a command that is not a method of a Trainer."""
    module = import_module(f"lit_credit.cli.{COMMANDS[command].module}")
    parser: ShortErrorArguments = module.parser()
    return parser


def listing() -> str:
    """All commands, one line each."""
    return f"{_USAGE}\n\n{DESCRIPTION}\n\ncommands:\n{_lines()}\n\n{_FURTHER}"


def _lines() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(f"  {name:{width}}  {command.text}" for name, command in COMMANDS.items())


def unknown(word: str) -> ArgumentsError:
    """The error for a word that is not a command or an option: the nearest, and all commands."""
    close = get_close_matches(word, [*COMMANDS, "--help", "--version"], n=1)
    hint = f" Did you mean `lit-credit {close[0]}`?" if close else ""
    kind = "option" if word.startswith("-") else "command"
    if not close and kind == "option":
        hint = f" Options follow the command, as in `lit-credit fit {word}`."
    return ArgumentsError("lit-credit", f"no {kind} {word!r}.{hint}", after=f"\n{_lines()}")


def versions() -> str:
    """The versions that matter in a report of a fault; nothing is imported for it."""
    python = sys.version.partition(" ")[0]
    others = ", ".join(f"{name} {_version(name)}" for name in ("torch", "lightning"))
    return f"lit-credit {lit_credit.__version__} ({others}, Python {python})"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
