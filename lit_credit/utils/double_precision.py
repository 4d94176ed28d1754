"""A module in float64 for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["double_precision"]


@contextmanager
def double_precision(module: nn.Module) -> Iterator[None]:
    """Compute with float64 copies of all parameters and buffers; the originals come back on exit.

    The Parameter objects stay the same, and so does the memory that they return to.
    """
    tensors = [t for t in [*module.parameters(), *module.buffers()] if t.is_floating_point()]
    originals = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.double()
        yield
    finally:
        for tensor, original in zip(tensors, originals, strict=True):
            tensor.data = original
