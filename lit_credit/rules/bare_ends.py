"""Warning of units that end in front of an activation."""

from collections.abc import Mapping, Sequence

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from lit_credit.feedback.activations import ends_bare, followed_by_activation

__all__ = ["BareEnds"]


class BareEnds:
    """Units whose credit enters in front of an activation, so that its derivative is missing.

    Units that an activation follows as a submodule are warned of at once; activations that are
    functions show in a forward pass.

    Args:
        net: the net.
        units: names of its units, in forward order.
        rule: name of the rule, for the warning.
    """

    def __init__(self, net: nn.Module, units: Sequence[str], rule: str) -> None:
        self.rule = rule
        joined: dict[str, str] = {}
        for name in units:
            following = followed_by_activation(net, name)
            # A norm that is a unit of its own belongs to the layer in front of it.
            if following and not any(f"{full}+".find(f"+{name}+") > 0 for full in joined.values()):
                joined[name] = "+".join([name, *following])
        self.bare = {name for name in units if ends_bare(net, name)} - joined.keys()
        self._warn(list(joined), "an activation", list(joined.values()))

    def warn_of_activations(self, followed: Mapping[str, str]) -> None:
        """Warn of units whose output went into an activation in a forward pass.

        Args:
            followed: the kind of the activation, by the name of the unit.
        """
        units = [name for name in followed if name in self.bare]
        kinds = ", ".join(dict.fromkeys(followed[name] for name in units))
        self._warn(units, kinds, [f"{name}->" for name in units])

    def _warn(self, units: Sequence[str], what: str, remedies: Sequence[str]) -> None:
        if units:
            rank_zero_warn(
                f"{self.rule}: the credit of {_some(units)} enters in front of {what}, so its "
                "derivative f'(z) is missing from the update (see Nokland 2016, equation 7). To "
                f"make layer and activation one unit, write in `units`: {_some(remedies)}."
            )


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more
