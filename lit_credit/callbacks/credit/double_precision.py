"""Running a module in float64 for the duration of a ``with``."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lit_credit.callbacks.credit.double_mode import DoubleMode, raised
from lit_credit.inspect.state.guard import isolated
from lit_credit.utils.nested import with_items
from lit_credit.utils.private_names import PARAMETERS, SUBMODULES, own_parameters

__all__ = ["double_precision"]


@contextmanager
def double_precision(module: nn.Module) -> Iterator[DoubleMode]:
    """Compute in float64 even where the module casts below it; restore everything on exit.

    Parameters, buffers and plain attributes get float64 copies, and casts below float64 stay in
    float64; see :class:`DoubleMode`. Run the backward pass inside the ``with`` as well. The
    Parameter objects and their original memory are kept. Under DDP and any other process group,
    other Parameter objects replace them inside the ``with``.

    Yields:
        The mode, which counts what was still computed below float64.
    """
    weights = [p for p in module.parameters() if p.is_floating_point()]
    mode = DoubleMode(weights[0].dtype if weights else torch.get_default_dtype())
    with isolated(module), _raised_parameters(module):
        known: dict[int, Any] = {}
        for child in module.modules():
            attributes = vars(child)
            for name, value in list(attributes.items()):
                if name not in (PARAMETERS, SUBMODULES):
                    attributes[name] = _raised_within(value, known)
        with mode:
            yield mode


@contextmanager
def _raised_parameters(module: nn.Module) -> Iterator[None]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # Data of another dtype would make autograd forget the hooks by which DDP averages
        # gradients: this process would go on alone, and the others would wait forever.
        with _replaced(module):
            yield
        return
    parameters = list(module.parameters())
    originals = [parameter.data for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.data = raised(parameter.data)
        yield
    finally:
        for parameter, original in zip(parameters, originals, strict=True):
            parameter.data = original


@contextmanager
def _replaced(module: nn.Module) -> Iterator[None]:
    kept = [
        (owner, name, parameter)
        for owner in module.modules()
        for name, parameter in own_parameters(owner).items()
        if parameter is not None and raised(parameter.data) is not parameter.data
    ]
    copies = {p: nn.Parameter(raised(p.detach()), p.requires_grad) for _, _, p in kept}
    try:
        for owner, name, parameter in kept:
            setattr(owner, name, copies[parameter])
        yield
    finally:
        for owner, name, parameter in kept:
            setattr(owner, name, parameter)


def _raised_within(value: Any, known: dict[int, Any]) -> Any:
    """Raise tensors to float64, also in containers, which are copies already; shared ones once.

    ``known`` holds each value beside its twin, so that no other object can get the value's id.
    """
    if isinstance(value, nn.Parameter) or not isinstance(value, Tensor | list | tuple | dict):
        return value
    if id(value) in known:
        return known[id(value)][1]
    if isinstance(value, Tensor):
        known[id(value)] = value, raised(value)
    elif isinstance(value, tuple):
        parts = [_raised_within(part, known) for part in value]
        if all(new is old for new, old in zip(parts, value, strict=True)):
            return value
        known[id(value)] = value, with_items(value, enumerate(parts))
    else:
        known[id(value)] = value, value
        for key, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
            new = _raised_within(part, known)
            if new is not part:
                value[key] = new
    return known[id(value)][1]
