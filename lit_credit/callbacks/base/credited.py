"""The credit that units receive."""

from collections.abc import Collection, Sequence

from lightning.pytorch import LightningModule
from torch import Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.inspect.capture import Point
from lit_credit.protocols import ModuleProtocol, asked, method
from lit_credit.utils.short_text import choice

__all__ = ["check_credited", "delivered_credit"]


def delivered_credit(chunk: Chunk, points: Sequence[Point]) -> dict[str, Tensor]:
    """The credit at the outputs of units, by the name of the unit.

    This is ``credit(batch)`` if the module has it; else what the module's own backward delivers.
    It is empty if a rule credits parameters, not units.

    Args:
        chunk: the chunk.
        points: the outputs of the units.

    Raises:
        ValueError: if one of the units receives no credit.
    """
    if method(chunk.module, ModuleProtocol.credit) is None:
        own = chunk.gradients(points, exact=False)
        return {point.module: gradient for point, (_, gradient) in own.items()}
    credit = chunk.credit()
    if credit:
        check_credited(chunk.module, [point.module for point in points], credit)
    return credit


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
