"""What a training step may leave behind in its module, caught in a copy."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

from torch import Tensor, nn

__all__ = ["preserved_state"]


@contextmanager
def preserved_state(module: nn.Module) -> Iterator[None]:
    """Let ``module``, and all below it, work on copies of their buffers and attributes.

    On exit the originals are back, untouched: running statistics, the states of torchmetrics, a
    list of outputs kept for the end of the epoch, or a dict of such lists, a counter. Parameters
    stay as they are, and so do objects of other kinds that an attribute refers to. Costs a copy of
    the buffers, and of tensors in such lists.
    """
    attributes = [(vars(child), dict(vars(child))) for child in module.modules()]
    try:
        for now, before in attributes:
            now.update(_copied(before, {}))
        yield
    finally:
        for now, before in attributes:
            now.clear()
            now.update(before)


def _copied(value: Any, known: dict[int, Any]) -> Any:
    """A copy down to the tensors; ``known`` are those made, for what is held twice or by itself."""
    if isinstance(value, Tensor):
        return value if isinstance(value, nn.Parameter) else value.clone()
    if not isinstance(value, list | dict | set | deque):
        return value
    if id(value) not in known:
        known[id(value)] = changed = copy(value)
        if not isinstance(changed, set):
            items = changed.items() if isinstance(changed, dict) else enumerate(changed)
            for key, part in list(items):
                new = _copied(part, known)
                if new is not part:
                    changed[key] = new
    return known[id(value)]
