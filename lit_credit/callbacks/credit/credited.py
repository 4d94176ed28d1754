"""Checking that chosen units receive credit."""

from collections.abc import Collection, Sequence

from lightning.pytorch import LightningModule

from lit_credit.protocols import ModuleProtocol, asked
from lit_credit.utils.short_text import choice

__all__ = ["check_credited"]


def check_credited(module: LightningModule, names: Sequence[str], credit: Collection[str]) -> None:
    """Refuse units that receive no credit; a declared unit that did not run is accepted.

    Args:
        module: the module.
        names: names of the chosen units.
        credit: names of the units that received credit.

    Raises:
        ValueError: naming the units without credit, and those with credit.
    """
    units = asked(module, ModuleProtocol.credit_units, None) or ()  # some may not have run
    without = [name for name in names if name not in credit and name not in units]
    if without:
        raise ValueError(
            f"`units`: {choice(without)} receive no credit. Choose from: "
            f"{choice(units or credit, without[0])}."
        )
