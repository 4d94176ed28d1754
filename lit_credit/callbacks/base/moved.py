"""Moving parameters along a direction for a while."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["moved"]


@contextmanager
def moved(
    parameters: Mapping[str, nn.Parameter], direction: Mapping[str, Tensor], scale: float
) -> Iterator[None]:
    """Add ``scale`` times a direction to parameters; they are what they were on exit, to the bit.

    The cost is a copy of these parameters while the ``with`` lasts.

    Args:
        parameters: parameters by name.
        direction: a tensor of the parameter's shape by name; others stay where they are.
        scale: factor of the direction; 0 moves and copies nothing.
    """
    here = {name: parameters[name] for name in direction} if scale else {}
    before = {name: parameter.detach().clone() for name, parameter in here.items()}
    try:
        with torch.no_grad():
            for name, parameter in here.items():
                parameter.add_(direction[name], alpha=scale)
        yield
    finally:
        with torch.no_grad():
            for name, parameter in here.items():
                parameter.copy_(before[name])
