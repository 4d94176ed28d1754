"""Experiments on credit assignment in neural networks, on Lightning."""

from typing import TYPE_CHECKING

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

if not TYPE_CHECKING:
    __getattr__, __dir__ = late_names(
        __name__,
        {
            "rules": "BP DFA FA BlockFA CreditRule FrozenUnits LocalRule",
            "diagnosis": "diagnose",
            "comparison": "compare",
        },
    )
