"""Reporting wrong command-line arguments in one line."""

import argparse
import sys
from typing import NoReturn

__all__ = ["ArgumentsError", "ShortErrorArguments"]


class ArgumentsError(Exception):
    """A parser has refused its arguments.

    Args:
        program: name that the line begins with.
        reason: what is wrong, in one line.
        command: the command whose ``--help`` lists the options; None takes ``program``.
        after: text below the line, in place of the hint at ``--help``.
    """

    def __init__(
        self, program: str, reason: str, command: str | None = None, after: str = ""
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        hint = f"\n{after}" if after else f" (Options: `{command or program} --help`)"
        self.line = f"{program}: error: {reason}{hint}"


class ShortErrorArguments(argparse.ArgumentParser):
    """``ArgumentParser`` that prints no usage text before an error."""

    def error(self, message: str) -> NoReturn:
        """Print the reason in a line, and exit with 2."""
        print(ArgumentsError(self.prog, message).line, file=sys.stderr)
        sys.exit(2)
