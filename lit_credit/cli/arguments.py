"""Command lines that are wrong, told in a line."""

import argparse
import sys
from typing import NoReturn

__all__ = ["ShortErrorArguments"]


class ShortErrorArguments(argparse.ArgumentParser):
    """``ArgumentParser`` without its page of usage before each error."""

    def error(self, message: str) -> NoReturn:
        """Print the reason in a line, and exit with 2."""
        print(f"{self.prog}: error: {message} (Options: `{self.prog} --help`)", file=sys.stderr)
        sys.exit(2)
