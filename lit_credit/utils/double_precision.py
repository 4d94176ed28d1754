"""A module in float64 for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["double_precision"]


@contextmanager
def double_precision(module: nn.Module) -> Iterator[None]:
    """Compute with float64 copies of all parameters and buffers; the originals come back on exit.

    The Parameter objects stay the same, and so does the memory that they return to. Under DDP, and
    any other process group, others stand in for them meanwhile.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # Other data of another dtype would make autograd forget the hooks by which DDP averages
        # gradients: this process would go on alone, and the others wait for ever.
        with _replaced(module):
            yield
        return
    tensors = [t for t in [*module.parameters(), *module.buffers()] if t.is_floating_point()]
    originals = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.double()
        yield
    finally:
        for tensor, original in zip(tensors, originals, strict=True):
            tensor.data = original


@contextmanager
def _replaced(module: nn.Module) -> Iterator[None]:
    kept = [
        (owner, name, tensor)
        for owner in module.modules()
        for own in (owner._parameters, owner._buffers)
        for name, tensor in own.items()
        if tensor is not None and tensor.is_floating_point()
    ]
    copies = {tensor: _double(tensor) for _, _, tensor in kept}  # one of a tensor that is shared
    try:
        for owner, name, tensor in kept:
            setattr(owner, name, copies[tensor])
        yield
    finally:
        for owner, name, tensor in kept:
            setattr(owner, name, tensor)


def _double(tensor: torch.Tensor) -> torch.Tensor:
    copy = tensor.detach().double()
    return nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy
