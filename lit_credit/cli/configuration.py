"""Reading the configuration of a command line, without building, running or printing anything."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import ArgsType, LightningArgumentParser

from lit_credit.cli.boundary import line_of
from lit_credit.cli.class_rules import replaced_classes
from lit_credit.cli.fit import LitCreditCLI, run
from lit_credit.cli.kept_parsers import keep_parser
from lit_credit.cli.parser import print_line

__all__ = ["ReadWords", "configuration_of", "fit_read", "read_words"]


@dataclass(frozen=True)
class ReadWords:
    """What ``lit-credit fit`` has read from a command line."""

    namespace: Namespace
    """The parsed words, as ``LightningCLI`` holds them in ``config``."""
    configuration: dict[str, Any]
    """The full configuration, as ``--print_config`` prints it."""
    lines: list[str]
    """Which arguments of replaced classes are kept or dropped, as ``fit`` prints it."""


class _Read(Exception):
    """Ends the command after the parsing, before Lightning builds anything."""

    def __init__(self, cli: LitCreditCLI) -> None:
        self.cli = cli


class _FitCLI(LitCreditCLI):
    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The command ``fit`` alone."""
        return {"fit": LitCreditCLI.subcommands()["fit"]}


class _ReadingCLI(_FitCLI):
    """Parses, and keeps the parser for the next command."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and end the command."""
        super().parse_arguments(parser, args)
        keep_parser(self)
        raise _Read(self)


def read_words(words: Sequence[str]) -> ReadWords:
    """Read and check the words of ``lit-credit fit``.

    The first call builds a parser, and later calls use it again.

    Args:
        words: the words after ``lit-credit fit``.

    Raises:
        ValueError: if ``fit`` refuses the words, with its reason in one line.
        Exception: any error, unchanged, if ``LIT_CREDIT_TRACEBACK`` is set.
    """
    lines: list[str] = []
    try:
        with replaced_classes(lines.append):
            cli = _parsed(words)
        return ReadWords(cli.config, cli.configuration(), lines)
    except Exception as error:
        if os.environ.get("LIT_CREDIT_TRACEBACK"):
            raise
        raise ValueError(line_of(error)) from error


def _parsed(words: Sequence[str]) -> LitCreditCLI:
    try:
        return run(["fit", *words], cli=_ReadingCLI)
    except _Read as read:
        return read.cli


def fit_read(read: ReadWords, words: Sequence[str]) -> LitCreditCLI:
    """Run ``lit-credit fit`` with words that were read before.

    Args:
        read: what was read. Its namespace is used up.
        words: the words after ``lit-credit fit`` that give this namespace.

    Returns:
        The CLI after the run.
    """

    class ReadCLI(_FitCLI):
        def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
            for line in read.lines:
                print_line(line)
            self.config = read.namespace

    return run(["fit", *words], cli=ReadCLI)


def configuration_of(words: Sequence[str]) -> dict[str, Any]:
    """The full configuration that ``lit-credit fit`` reads from a command line.

    Args:
        words: the words after ``lit-credit fit``.

    Returns:
        The configuration, as ``--print_config`` prints it.

    Raises:
        ValueError: if ``fit`` refuses the words, with its reason in one line.
        Exception: any error, unchanged, if ``LIT_CREDIT_TRACEBACK`` is set.
    """
    return read_words(words).configuration
