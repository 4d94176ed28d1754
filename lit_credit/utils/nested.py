"""Tensors inside nested tuples, lists and dicts."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

__all__ = ["first_tensor", "map_tensors", "replace_first"]


def first_tensor(value: Any) -> Tensor | None:
    """The tensor itself, or the first one in a nested tuple, list or dict, or None."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return next((t for t in map(first_tensor, value) if t is not None), None)
    return None


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """``value`` with ``change`` applied to every tensor in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: map_tensors(item, change) for key, item in value.items()}
    if isinstance(value, tuple | list):
        parts = [map_tensors(item, change) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def replace_first(value: Any, leaf: Tensor) -> Any:
    """A copy of ``value`` with its first tensor replaced."""
    if isinstance(value, Tensor):
        return leaf
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    for position, (key, item) in enumerate(items):
        if first_tensor(item) is not None:
            items[position] = (key, replace_first(item, leaf))
            break
    if isinstance(value, dict):
        return dict(items)
    contents = [item for _, item in items]
    return type(value)(*contents) if hasattr(value, "_fields") else type(value)(contents)
