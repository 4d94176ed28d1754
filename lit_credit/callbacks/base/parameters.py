"""The parameters that a diagnostic of weights or gradients is about."""

from collections.abc import Sequence

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn.parameter import is_lazy

from lit_credit.inspect.unit_names import unit_modules
from lit_credit.protocols import RuleProtocol, method
from lit_credit.utils.compiled import clean_name
from lit_credit.utils.nested import has_fractions
from lit_credit.utils.short_text import choice

__all__ = ["check_parameters", "measured_parameters", "net_parameters", "trained_parameters"]


def net_parameters(module: LightningModule) -> dict[str, nn.Parameter]:
    """All parameters by name, without those that the loss does not reach.

    Learned feedback is such a parameter, see
    :meth:`lit_credit.protocols.RuleProtocol.extra_parameters`.

    Args:
        module: the module.
    """
    extra = method(module, RuleProtocol.extra_parameters)
    left_out = {id(p) for group in (extra() if extra else {}).values() for p in group}
    return {
        clean_name(name): parameter
        for name, parameter in module.named_parameters()
        if id(parameter) not in left_out
    }


def trained_parameters(module: LightningModule) -> dict[str, nn.Parameter]:
    """Those of :func:`net_parameters` that require a gradient, and have a shape already.

    Args:
        module: the module.
    """
    found = net_parameters(module).items()
    return {name: p for name, p in found if p.requires_grad and not is_lazy(p)}


def measured_parameters(
    module: LightningModule, units: Sequence[str] | None = None
) -> dict[str, nn.Parameter]:
    """Those of :func:`net_parameters` that are trained; all of them if none is trained.

    Args:
        module: the module.
        units: names of submodules whose parameters are wanted; None takes all.
    """
    wanted = None
    if units is not None:
        parts = (part for unit in units for part in unit_modules(module, unit))
        wanted = {id(parameter) for part in parts for parameter in part.parameters()}
    found = {
        name: parameter
        for name, parameter in net_parameters(module).items()
        if has_fractions(parameter) and (wanted is None or id(parameter) in wanted)
    }
    trained = {name: parameter for name, parameter in found.items() if parameter.requires_grad}
    return trained or found


def check_parameters(module: LightningModule, units: Sequence[str] | None = None) -> None:
    """Raise an error if a module, or its units, have no parameters. Frozen parameters suffice.

    Args:
        module: the module.
        units: names of submodules, the value of a diagnostic's ``units``; None takes all.

    Raises:
        MisconfigurationException: if there is no parameter of real or complex numbers.
    """
    if measured_parameters(module, units):
        return
    if units is None:
        raise MisconfigurationException(
            f"{type(module).__name__} has no parameters to measure. Leave this callback out."
        )
    names = choice(unit.removeprefix("net.") for unit in units)
    raise MisconfigurationException(
        f"`units`: {names} {'have' if len(units) > 1 else 'has'} no parameters, and "
        "parameters are measured. Choose submodules with weights, or join them (`fc1+act1`), or "
        "leave `units` out for all parameters."
    )
