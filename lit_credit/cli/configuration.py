"""The configuration that a command line means, as a value: nothing is made, run or printed."""

import os
from collections.abc import Sequence
from typing import Any

import yaml

from lit_credit.cli.boundary import line_of
from lit_credit.cli.fit import run
from lit_credit.cli.parser import ShortErrorParser

__all__ = ["configuration_of"]


class _Asked(Exception):
    """Ends the parsing with the configuration, before Lightning makes anything of it."""

    def __init__(self, configuration: dict[str, Any]) -> None:
        self.configuration = configuration


class _AskedParser(ShortErrorParser):
    """Raises what `--print_config` would print."""

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """Raise the configuration."""
        text: str = super().dump(*args, **kwargs)
        if not self.exit_on_error:  # jsonargparse's own parser of the arguments of one class
            return text
        raise _Asked(yaml.safe_load(text))


def configuration_of(words: Sequence[str]) -> dict[str, Any]:
    """The full configuration that ``lit-credit fit`` makes of a command line.

    Args:
        words: what follows ``lit-credit fit``.

    Returns:
        The configuration, as ``--print_config`` prints it.

    Raises:
        ValueError: if ``fit`` refuses the words, with its reason in one line.
        Exception: any error as it is, if ``LIT_CREDIT_TRACEBACK`` is set.
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
