"""Nets cut into credit units: inside a unit the gradient is exact, between units none flows."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint

from lit_credit.utils.nested import first_tensor, map_tensors

__all__ = ["check_coverage", "check_recompute", "local_units", "stray_parameters"]


@contextmanager
def local_units(
    module: nn.Module,
    units: Sequence[str],
    *,
    detach_inputs: bool = True,
    recompute: bool = False,
) -> Iterator[dict[str, Tensor]]:
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
        A dict that the forward pass fills with each unit's output in its own graph, in the order
        of the calls. For a unit that returns several tensors it is the first one.

    Raises:
        ValueError: inside, if a unit runs twice in one forward pass or returns no float tensor.
    """
    outputs: dict[str, Tensor] = {}
    replaced = []
    try:
        for name in units:
            # The instance's attribute shadows the class's method. Written past nn.Module's
            # __setattr__, which would take longer than the forward of a small unit.
            attributes = vars(module.get_submodule(name))
            replaced.append((attributes, attributes.get("forward")))
            forward = module.get_submodule(name).forward
            local = _local_forward(forward, name, outputs, detach_inputs, recompute)
            attributes["forward"] = local
        yield outputs
    finally:
        for attributes, before in reversed(replaced):
            if before is None:
                del attributes["forward"]
            else:
                attributes["forward"] = before


def _local_forward(
    forward: Callable[..., Any],
    name: str,
    outputs: dict[str, Tensor],
    detach_inputs: bool,
    recompute: bool,
) -> Callable[..., Any]:
    def local(*args: Any, **kwargs: Any) -> Any:
        if name in outputs:
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
        outputs[name] = output
        return _detached(result)

    return local


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
            f"parameters outside of `units` and `readout` get no credit: {', '.join(stray)}. "
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
