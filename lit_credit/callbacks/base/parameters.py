"""The parameters that a diagnostic of weights or gradients is about."""

from collections.abc import Sequence

from lightning.pytorch import LightningModule
from torch import nn

from lit_credit.callbacks.base.credited import net_parameters
from lit_credit.inspect.unit_names import unit_modules
from lit_credit.utils.nested import has_fractions

__all__ = ["measured_parameters"]


def measured_parameters(
    module: LightningModule, units: Sequence[str] | None = None
) -> dict[str, nn.Parameter]:
    """The trained parameters of the net, by name; all of it if none is trained.

    Parameters that the loss does not reach, such as a learned feedback, are left out; see
    :meth:`lit_credit.protocols.RuleProtocol.extra_parameters`.

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
