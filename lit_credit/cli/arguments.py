"""Words of a command line that cannot be read: one line says what is wrong, and where to look."""

import argparse
import sys
from typing import NoReturn

__all__ = ["ArgumentsError", "ShortErrorArguments"]


class ArgumentsError(Exception):
    """A parser has refused the words that it was given.

    Args:
        program: name that the line begins with.
        reason: what is wrong, in one line.
        command: whose ``--help`` lists the options; None takes the program.
    """

    def __init__(self, program: str, reason: str, command: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = f"{program}: error: {reason} (Options: `{command or program} --help`)"


class ShortErrorArguments(argparse.ArgumentParser):
    """``ArgumentParser`` without its page of usage before each error."""

    def error(self, message: str) -> NoReturn:
        """Print the reason in a line, and exit with 2."""
        print(ArgumentsError(self.prog, message).line, file=sys.stderr)
        sys.exit(2)
