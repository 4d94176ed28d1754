"""The parameters of a module, by its units and its other layers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lightning.pytorch import LightningModule
from torch import nn
from torch.nn.parameter import is_lazy

from lit_credit.inspect.unit_names import unit_modules
from lit_credit.utils.compiled import clean_name, named_submodules
from lit_credit.utils.nested import has_fractions

__all__ = ["ParameterGroup", "parameter_groups"]


@dataclass(eq=False)
class ParameterGroup:
    """The layers of a unit, or one other layer.

    Attributes:
        name: name of the unit or the layer, without ``net.``.
        layers: its submodules with parameters of their own.
        parameters: its parameters by name; one that several layers share belongs to the first.
    """

    name: str
    layers: list[nn.Module] = field(default_factory=list)
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that require a gradient now."""
        return {name: p for name, p in self.parameters.items() if p.requires_grad}


def parameter_groups(module: LightningModule, units: Sequence[str]) -> list[ParameterGroup]:
    """All parameters of a module, in the order of its layers.

    Each layer inside of a unit belongs to that unit. Each other layer is a group of its own, and is
    left out if no parameter of it requires a gradient.

    Args:
        module: the module.
        units: names of its units; may be empty.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
        >>> [group.name for group in parameter_groups(net, ["1"])]
        ['0', '1']
    """
    unit_of = {
        id(layer): unit
        for unit in reversed(units)
        for part in unit_modules(module, unit)
        for layer in part.modules()
    }
    groups: dict[str, ParameterGroup] = {}
    known: set[int] = set()
    for path, layer in named_submodules(module):
        own = dict(layer.named_parameters(recurse=False))
        if not own:
            continue
        unit = unit_of.get(id(layer))
        if unit is None and not any(p.requires_grad for p in own.values()):
            continue
        name = unit or path or type(module).__name__
        group = groups.setdefault(name, ParameterGroup(name.replace("net.", "", 1)))
        group.layers.append(layer)
        for key, parameter in own.items():
            if id(parameter) not in known and not is_lazy(parameter) and has_fractions(parameter):
                known.add(id(parameter))
                full = f"{path}.{key}" if path else key
                group.parameters[clean_name(full)] = parameter
    return list(groups.values())
