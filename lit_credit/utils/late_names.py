"""Names that a package offers, and whose modules it loads when they are asked for."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["late_names"]


def late_names(
    package: str, homes: dict[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: ``__name__`` of the package.
        homes: modules of the package, each with the names that it defines, between blanks. No name
            is that of a module of the package: importing that would put the module in its place.

    Example:
        >>> get, _ = late_names("lit_credit", {"rules.dfa": "DFA", "functional": "growth"})
        >>> get("DFA")
        <class 'lit_credit.rules.dfa.DFA'>
    """
    home_of = {name: home for home, names in homes.items() for name in names.split()}

    def __getattr__(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{home_of[name]}"), name)

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return __getattr__, __dir__
