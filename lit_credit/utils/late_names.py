"""Loading the modules of a package when one of its names is first used."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["late_names"]


def late_names(
    package: str, homes: dict[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: ``__name__`` of the package.
        homes: module of the package to the names that it defines, separated by blanks. No name may
            equal that of a module of the package, since importing the module would replace it.

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
