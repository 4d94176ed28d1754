"""Reading the configuration of a command line, without building, running or printing anything."""

import os
from collections.abc import Sequence
from typing import Any

import yaml

from lit_credit.cli.boundary import line_of
from lit_credit.cli.fit import run
from lit_credit.cli.parser import ShortErrorParser

__all__ = ["configuration_of"]


class _Asked(Exception):
    """Ends the parsing with the configuration, before Lightning builds anything."""

    def __init__(self, configuration: dict[str, Any]) -> None:
        self.configuration = configuration


class _AskedParser(ShortErrorParser):
    """Raises the configuration that `--print_config` would print."""

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """Raise the configuration."""
        text: str = super().dump(*args, **kwargs)
        if not self.exit_on_error:  # jsonargparse's own parser of the arguments of one class
            return text
        raise _Asked(yaml.safe_load(text))


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
    try:
        run(["fit", *words, "--print_config"], parser_class=_AskedParser)
    except _Asked as asked:
        return asked.configuration
    except Exception as error:
        if os.environ.get("LIT_CREDIT_TRACEBACK"):
            raise
        raise ValueError(line_of(error)) from error
    raise AssertionError("`--print_config` ends the parsing")
