"""Nets cut into credit units: inside a unit the gradient is exact, between units none flows."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint

from lit_credit.utils.nested import first_tensor, map_tensors
from lit_credit.utils.short_text import choice

__all__ = [
    "UnitGraphs",
    "check_coverage",
    "check_recompute",
    "local_units",
    "stray_parameters",
]


@dataclass(frozen=True)
class UnitGraphs:
    """What a forward pass leaves behind, one entry a unit, in the order of the calls.

    Attributes:
        outputs: each unit's output in its own graph; of several tensors the first. With
            ``recompute`` only their shapes count, the values are not kept.
        linear: for units that are one linear layer, its input and the layer.
    """

    outputs: dict[str, Tensor] = field(default_factory=dict)
    linear: dict[str, tuple[Tensor, nn.Linear]] = field(default_factory=dict)


@contextmanager
def local_units(
    module: nn.Module,
    units: Sequence[str],
    *,
    detach_inputs: bool = True,
    recompute: bool = False,
) -> Iterator[UnitGraphs]:
    """Cut the graph of every forward pass inside the ``with`` at the borders of the units.

    Each unit runs on detached inputs, and the rest of the net sees its output detached, so no
    credit passes through it or around it, skip connections included.

    Args:
        module: the net.
        units: names of submodules of ``module``, in forward order.
        detach_inputs: cut at the inputs too. Without it, parameters that lie between two units
            learn from the credit of the unit that follows.
        recompute: keep only the inputs of each unit, and run it a second time in the backward
            pass: less memory for one more forward.

    Yields:
        What the forward pass fills in.

    Raises:
        ValueError: inside, if a unit runs twice in one forward pass or returns no float tensor.
    """
    graphs = UnitGraphs()
    replaced = []
    try:
        for name in units:
            unit = module.get_submodule(name)
            # The instance's attribute shadows the class's method. Written past nn.Module's
            # __setattr__, which takes as long as the forward of a small unit.
            attributes = vars(unit)
            replaced.append((attributes, attributes.get("forward")))
            attributes["forward"] = _local_forward(unit, name, graphs, detach_inputs, recompute)
        yield graphs
    finally:
        for attributes, before in reversed(replaced):
            if before is None:
                del attributes["forward"]
            else:
                attributes["forward"] = before


def _local_forward(
    unit: nn.Module, name: str, graphs: UnitGraphs, detach_inputs: bool, recompute: bool
) -> Callable[..., Any]:
    forward = unit.forward

    def local(*args: Any, **kwargs: Any) -> Any:
        if name in graphs.outputs:
            raise ValueError(
                f"unit {name!r} runs more than once in one forward pass, so it has no single "
                "output to credit. Name a submodule that contains all of its uses."
            )
        if detach_inputs:
            args, kwargs = _detached(args), _detached(kwargs)
        if recompute and is_grad_enabled():
            result = checkpoint(forward, *args, use_reentrant=False, **kwargs)
        else:
            result = forward(*args, **kwargs)
        output = first_tensor(result)
        if output is None or not output.is_floating_point():
            raise ValueError(
                f"unit {name!r} returns no floating-point tensor, but {type(result).__name__}. "
                "Choose another submodule as a unit."
            )
        graphs.outputs[name] = _WithoutValues.apply(output) if recompute else output
        if type(unit) is nn.Linear and args and args[0].dtype == output.dtype:
            graphs.linear[name] = args[0], unit
        return _detached(result)

    return local


class _WithoutValues(torch.autograd.Function):
    """A stand-in of a tensor's shape, at the same place of the graph, that takes no memory."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.new_zeros(()).expand(tensor.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def _detached(value: Any) -> Any:
    return map_tensors(value, _detached_tensor)


def _detached_tensor(tensor: Tensor) -> Tensor:
    return tensor.detach() if tensor.requires_grad else tensor


def check_coverage(module: nn.Module, units: Sequence[str], readout: Sequence[str]) -> None:
    """Check that every trainable parameter belongs to one unit or to the readout.

    Args:
        module: the net.
        units: names of the units.
        readout: names of the submodules after the last unit.

    Raises:
        ValueError: if one of the named submodules contains another, or if trainable parameters
            lie outside of all of them; the error lists them.
    """
    named = [*units, *readout]
    for name in named:
        inner = next((other for other in named if other.startswith(f"{name}.")), None)
        if inner or named.count(name) > 1:
            raise ValueError(
                f"`units` and `readout` must be disjoint, but {name!r} contains {inner or name!r}. "
                "Name either the whole or its parts."
            )
    stray = stray_parameters(module, named)
    if stray:
        raise ValueError(
            f"parameters outside of `units` and `readout` get no credit: {choice(stray)}. "
            "Name the submodule of each in `units` (or in `readout`, if it comes after the last "
            "unit), or set `stray` to 'freeze' (keep them at their initial values) or 'train' "
            "(learn from the credit of the unit that follows)."
        )


def stray_parameters(module: nn.Module, named: Sequence[str]) -> list[str]:
    """The names of trainable parameters of ``module`` outside of the named submodules."""
    covered = {
        id(parameter) for name in named for parameter in module.get_submodule(name).parameters()
    }
    return [
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and id(parameter) not in covered
    ]


def check_recompute(module: nn.Module, units: Sequence[str]) -> None:
    """Check that running a unit twice leaves no trace.

    Raises:
        ValueError: if a unit keeps running statistics, which a second forward would update again.
    """
    for unit in units:
        for name, child in module.get_submodule(unit).named_modules(prefix=unit):
            if getattr(child, "running_mean", None) is not None:
                raise ValueError(
                    f"`recompute` runs every unit twice, but {name!r} ({type(child).__name__}) "
                    "would update its running statistics twice. Set `recompute` to false, or use "
                    "a norm without running statistics."
                )
