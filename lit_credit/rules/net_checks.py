"""Refusing nets for which a rule is not defined."""

from torch import nn

from lit_credit.protocols import NetProtocol, method

__all__ = ["check_no_energy"]


def check_no_energy(net: nn.Module, rule: str) -> None:
    """Refuse a net whose layers drive each other in both directions outside of the units.

    Raises:
        ValueError: if the net has an energy.
    """
    if method(net, NetProtocol.energy) is not None:
        raise ValueError(
            f"{type(net).__name__} settles on an energy: its weights act both ways, outside of the "
            f"units, where {rule} can neither cut nor replace the gradient. Train it by "
            "EquilibriumPropagation or BP, or take another net, such as MLP."
        )
