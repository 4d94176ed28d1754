"""Answering ``--help``, unknown commands and missing files before Lightning is loaded."""

import os
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from lit_credit.cli.own_modules import configs_of
from lit_credit.cli.reasons import ShortErrors

__all__ = ["COMMANDS", "DESCRIPTION", "answer"]

DESCRIPTION = """Experiments on credit assignment in neural networks.

`lit-credit fit --config FILE` trains; `lit-credit diagnose --config RUN/config.yaml` measures
diagnostics over checkpoints; `lit-credit compare RUN...` compares runs;
`lit-credit sweep --config FILE --grid GRID --out TABLE` runs a grid of overrides and seeds;
`lit-credit benchmark` compares rules, tuned under one budget."""

COMMANDS = {
    "fit": "Runs the full optimization routine.",
    "validate": "Perform one evaluation epoch over the validation set.",
    "test": "Perform one evaluation epoch over the test set. It's separated from fit to make sure "
    "you never run on your",
    "predict": "Run inference on your data. This will call the model forward function to compute "
    "predictions. Useful to",
    "diagnose": "Measure the diagnostics of a configuration over checkpoints.",
}
"""Commands of a Trainer, and their texts in the help."""


def answer(words: Sequence[str]) -> None:
    """Answer ``--help``, and refuse an unknown command or a missing ``--config`` file.

    Args:
        words: the words after ``lit-credit``.

    Raises:
        SystemExit: if help was printed.
        ArgumentsError: if the words are refused.
    """
    first = words[0] if words else "--help"
    if not words or first in ("-h", "--help") or not (first.startswith("-") or first in COMMANDS):
        _parser().parse_args(list(words))
    for file in configs_of(words):
        # Text that is not a path is itself a configuration: the parser reads it later.
        if file.endswith((".yaml", ".yml")) and "://" not in file and not _exists(file):
            given = [first] if first in COMMANDS else []
            _parser().parse_args([*given, "--config", file])


def _exists(file: str) -> bool:
    return os.path.exists(Path(file).expanduser())


def _parser() -> ShortErrors:
    """A parser with Lightning's commands, but without the options of these commands."""
    parser = ShortErrors(prog="lit-credit", description=DESCRIPTION)
    commands = parser.add_subcommands()
    parser.add_argument("-c", "--config", action=ActionConfigFile, help=_CONFIG_HELP)
    for name, text in COMMANDS.items():
        command = ShortErrors(description=text)
        command.add_argument("-c", "--config", action=ActionConfigFile, help=_CONFIG_HELP)
        commands.add_subcommand(name, command, help=text)
    return parser


_CONFIG_HELP = "Path to a configuration file in json or yaml format."
