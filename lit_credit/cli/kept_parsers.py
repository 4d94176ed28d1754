"""Keeping parsers: to build the parser of a command takes longer than to read the words with it."""

from typing import Any

from lightning.pytorch.cli import LightningCLI

from lit_credit.utils.private_names import parser_parts

__all__ = ["keep_parser", "take_parser"]

_KEPT: dict[tuple[Any, ...], dict[str, Any]] = {}


def keep_parser(cli: LightningCLI) -> None:
    """Keep the parser of a CLI for the next CLI of its kind.

    Args:
        cli: has parsed its words. It must not build its classes: the parser would refer to it.
    """
    _KEPT[_kind(cli)] = parser_parts(cli)


def take_parser(cli: LightningCLI) -> bool:
    """Give a CLI the parser that was kept for its kind; each kept parser is taken once.

    Returns:
        Whether there was one.
    """
    parts = _KEPT.pop(_kind(cli), None)
    if parts is not None:
        vars(cli).update(parts)
    return parts is not None


def _kind(cli: LightningCLI) -> tuple[Any, ...]:
    """What decides the options of a parser."""
    classes = (cli.model_class, cli.datamodule_class, cli.trainer_class)
    return cli.parser_class, *cli.subcommands(), *classes
