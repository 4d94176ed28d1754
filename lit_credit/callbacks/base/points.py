"""The submodules and points of a module that a diagnostic measures."""

from collections.abc import Sequence

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn

from lit_credit.callbacks.base.failures import missing
from lit_credit.inspect.capture import Point
from lit_credit.inspect.unit_names import (
    all_names,
    expand_units,
    is_composite,
    unit_modules,
    with_prefix,
)
from lit_credit.protocols import ModuleProtocol, asked
from lit_credit.utils.names import matched_units, shown_names, submodule_names
from lit_credit.utils.short_text import choice

__all__ = [
    "declares_units",
    "gradients_of",
    "layer_tag",
    "no_units",
    "point_text",
    "stream_points",
    "unit_names",
]


def unit_names(
    callback: Callback, module: LightningModule, units: Sequence[str] | None
) -> list[str]:
    """The submodules that a diagnostic is about, in forward order.

    These are ``units`` if given, as names of the module or of its ``net``; else the
    ``credit_units`` that the module declares.

    Raises:
        ValueError: if a pattern matches nothing, or a name is matched twice.
        MisconfigurationException: if neither ``units`` nor ``credit_units`` are given.
    """
    names = submodule_names(module)
    if units is not None:
        if any(map(is_composite, units)):
            return _composite_units(module, units, names)
        return matched_units(units, names)
    declared = _declared(module)
    if not declared:
        raise no_units(callback, module)
    return declared


def no_units(callback: Callback, module: LightningModule) -> Exception:
    """The error for a module without declared units and a diagnostic without ``units``."""
    remedy = f"Set `units` to some of: {choice(shown_names(submodule_names(module)))}."
    return missing(callback, module, "`units`, or a module with `credit_units`", remedy)


def declares_units(module: LightningModule) -> bool:
    """Whether a module declares a residual stream or units, so that ``units`` may be None."""
    return bool(asked(module, ModuleProtocol.residual_stream, None) or _declared(module))


def _declared(module: LightningModule) -> list[str]:
    """The module's ``credit_units``; an attribute of another meaning does not count."""
    declared = asked(module, ModuleProtocol.credit_units, None)
    return list(declared) if isinstance(declared, list | tuple) else []


def _composite_units(module: nn.Module, units: Sequence[str], names: Sequence[str]) -> list[str]:
    known = [*names, *all_names(module)]
    try:
        return expand_units(units, names, "units", aliases=known)
    except ValueError:
        below = [
            name.removeprefix("net.") for name in dict.fromkeys(known) if name.startswith("net.")
        ]
        if not below:
            raise
        return [with_prefix(unit, "net.") for unit in expand_units(units, below, "units")]


def stream_points(
    callback: Callback, module: LightningModule, units: Sequence[str] | None
) -> list[Point]:
    """The points h_0 .. h_L of the residual stream.

    These are the inputs of the submodules that ``module.residual_stream`` names. Without it, or
    with ``units``, they are the inputs of the units and the output of the last unit. The input of a
    unit that begins with an embedding is left out, because it consists of symbols.
    """
    declared = asked(module, ModuleProtocol.residual_stream, None)
    if units is None and declared:
        return [Point(name, "input") for name in declared]
    names = unit_names(callback, module, units)
    inputs = [Point(name, "input") for name in names if not _begins_with_embedding(module, name)]
    return [*inputs, Point(names[-1], "output")]


def _begins_with_embedding(module: nn.Module, unit: str) -> bool:
    """Whether the first submodule with weights in a unit is an embedding."""
    leaves = (leaf for part in unit_modules(module, unit) for leaf in part.modules())
    first = next(
        (leaf for leaf in leaves if next(leaf.parameters(recurse=False), None) is not None), None
    )
    return isinstance(first, nn.Embedding | nn.EmbeddingBag)


def layer_tag(index: int) -> str:
    """``L03`` for the fourth layer."""
    return f"L{index:02d}"


def point_text(point: Point) -> str:
    """A point in words.

    Example:
        >>> point_text(Point("net.blocks.0", "input"))
        'input of blocks.0'
    """
    return f"{point.side} of {point.module.removeprefix('net.')}"


def gradients_of(scalar: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Dense gradients of a scalar; zero for a tensor that the scalar does not depend on."""
    if not tensors:
        return []
    found = torch.autograd.grad(scalar, tensors, allow_unused=True, materialize_grads=True)
    return [gradient.to_dense() for gradient in found]
