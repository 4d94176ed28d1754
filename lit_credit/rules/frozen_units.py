"""Backpropagation around units that stay as they were initialised."""

from typing import Any

from lit_credit.inspect.unit_names import expand_units, unit_modules
from lit_credit.rules.base import CreditRule
from lit_credit.utils.names import submodule_names
from lit_credit.utils.short_text import choice

__all__ = ["FrozenUnits"]


class FrozenUnits(CreditRule):
    """Backpropagation with the parameters of some units kept at their initial values.

    The baseline that depth has to beat: a rule under which deep units learn something useful is
    better than the same net with those units frozen. Gradients still pass through them.

    Args:
        *args: see :class:`lit_credit.rules.CreditRule`.
        frozen: names or patterns of submodules of ``net``; None freezes every unit.
        **kwargs: see :class:`lit_credit.rules.CreditRule`.

    Raises:
        ValueError: if there is nothing to freeze, or a pattern matches nothing.

    Reference:
        Hao, Wan, Zhai, What Accuracy and Gradient Cosine Miss, 2026, arXiv 2606.21126 (depth
        utility).
    """

    exact_credit = True

    def __init__(self, *args: Any, frozen: list[str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = submodule_names(self.net)
        self.frozen = self.units if frozen is None else expand_units(frozen, names, "frozen")
        if not self.frozen:
            raise ValueError(
                f"`frozen` names nothing, and the net declares no units. Choose from: "
                f"{choice(names)}."
            )
        for name in self.frozen:
            for part in unit_modules(self.net, name):
                part.requires_grad_(False)
