"""What a training step may leave behind in its module, caught in a copy."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

from torch import Tensor, nn

from lit_credit.utils.nested import map_tensors

__all__ = ["preserved_state"]


@contextmanager
def preserved_state(module: nn.Module) -> Iterator[None]:
    """Let ``module``, and all below it, work on copies of their buffers and attributes.

    On exit the originals are back, untouched: running statistics, the states of torchmetrics, a
    list of outputs kept for the end of the epoch, a counter. Parameters stay as they are, and so do
    objects of other kinds that an attribute refers to. Costs a copy of the buffers.
    """
    attributes = [(vars(child), dict(vars(child))) for child in module.modules()]
    try:
        for now, before in attributes:
            now.update({name: _copied(name, value) for name, value in before.items()})
        yield
    finally:
        for now, before in attributes:
            now.clear()
            now.update(before)


def _copied(name: str, value: Any) -> Any:
    if name == "_buffers":
        return map_tensors(value, Tensor.clone)
    if isinstance(value, Tensor):
        return value.clone()
    return copy(value) if isinstance(value, list | dict | set | deque) else value
