"""Experiments on credit assignment in neural networks, on Lightning."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lit_credit.former_names import import_former_paths
from lit_credit.utils.late_names import late_names

if TYPE_CHECKING:
    from lit_credit.comparison import compare
    from lit_credit.diagnosis import diagnose
    from lit_credit.rules import BP, DFA, FA, BlockFA, CreditRule, FrozenUnits, LocalRule

__all__ = [
    "BP",
    "DFA",
    "FA",
    "BlockFA",
    "CreditRule",
    "FrozenUnits",
    "LocalRule",
    "__version__",
    "compare",
    "diagnose",
]

__version__ = "0.1.0"

import_former_paths()


class _Package(ModuleType):
    """Keeps the function ``compare`` when the former module ``lit_credit.compare`` is imported.

    An import binds the name of a module in its package.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name == "compare" and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

if not TYPE_CHECKING:
    __getattr__, __dir__ = late_names(
        __name__,
        {
            "rules": "BP DFA FA BlockFA CreditRule FrozenUnits LocalRule",
            "diagnosis": "diagnose",
            "comparison": "compare",
        },
    )
