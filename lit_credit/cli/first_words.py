"""Answering ``--help``, unknown commands and missing files before Lightning is loaded."""

import os
from collections.abc import Sequence
from pathlib import Path

from lit_credit.cli.arguments import ArgumentsError
from lit_credit.cli.commands import COMMANDS, is_of_trainer, listing, unknown, versions
from lit_credit.cli.own_modules import configs_of

__all__ = ["answer", "check_configs"]

_BEFORE_A_COMMAND = ("-c", "--config", "--print_config", "--help-all")
"""Options that the parser of the Trainer's commands takes in front of a command."""


def answer(words: Sequence[str]) -> int | None:
    """Print help or versions, if the words ask for them.

    Args:
        words: the words after ``lit-credit``.

    Returns:
        The exit code; None if the words ask for something else.

    Raises:
        ArgumentsError: if the first word is not a command, nor an option in front of one, or if a
            command of the Trainer stands alone.
    """
    first = words[0] if words else ""
    if first in ("", "-h", "--help"):
        print(listing())
        return 0 if words else 2
    if first in ("-V", "--version"):
        print(versions())
        return 0
    if not (first in COMMANDS or first.startswith(_BEFORE_A_COMMAND)):
        raise unknown(first)
    if is_of_trainer(first) and not {"-h", "--help"}.isdisjoint(words):
        from lit_credit.cli.short_help import short_help  # it reads Lightning's source

        print(short_help(first))
        return 0
    if list(words) == [first] and is_of_trainer(first):
        raise ArgumentsError(
            "lit-credit",
            f"{first} needs a configuration, such as `lit-credit {first} --config "
            f"{'rules/dfa.yaml' if first == 'fit' else 'RUN/config.yaml'}`",
            f"lit-credit {first}",
        )
    return None


def check_configs(words: Sequence[str]) -> None:
    """Refuse a missing ``--config`` file of a Trainer's command.

    Args:
        words: the words after ``lit-credit``.

    Raises:
        ArgumentsError: in the words of the parser of the command.
    """
    for file in configs_of(words):
        # Text that is not a path is itself a configuration: the parser reads it later.
        if file.endswith((".yaml", ".yml")) and "://" not in file and not _exists(file):
            _refuse([*words[: is_of_trainer(words[0])], "--config", file])


def _exists(file: str) -> bool:
    return os.path.exists(Path(file).expanduser())


def _refuse(words: list[str]) -> None:
    """Parse the words with a parser of the Trainer's commands that has no other options."""
    # These take as long to load as all other modules of an answer.
    from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

    from lit_credit.cli.reasons import ShortErrors

    parser = ShortErrors(prog="lit-credit")
    commands = parser.add_subcommands()
    parser.add_argument("-c", "--config", action=ActionConfigFile)
    for name in filter(is_of_trainer, COMMANDS):
        command = ShortErrors()
        command.add_argument("-c", "--config", action=ActionConfigFile)
        commands.add_subcommand(name, command)
    parser.parse_args(words)
