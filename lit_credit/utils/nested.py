"""Tensors inside nested tuples, lists and mappings."""

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import Any

from torch import Tensor

__all__ = ["first_tensor", "is_plain", "map_tensors", "replace_first", "with_items"]

_PLAIN = (Tensor, bool, int, float, str, type(None))


def first_tensor(value: Any) -> Tensor | None:
    """The tensor itself, or the first one in a nested tuple, list or mapping, or None."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return next((t for t in map(first_tensor, value) if t is not None), None)
    return None


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """``value`` with ``change`` applied to every tensor in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return with_items(value, ((key, map_tensors(v, change)) for key, v in value.items()))
    if isinstance(value, tuple | list):
        return _like(value, [map_tensors(item, change) for item in value])
    return value


def replace_first(value: Any, leaf: Tensor) -> Any:
    """A copy of ``value`` with its first tensor replaced."""
    if isinstance(value, Tensor):
        return leaf
    items = list(value.items()) if isinstance(value, Mapping) else list(enumerate(value))
    key, item = next(pair for pair in items if first_tensor(pair[1]) is not None)
    changed = replace_first(item, leaf)
    if isinstance(value, Mapping):
        return with_items(value, [(key, changed)])
    return _like(value, [changed if position == key else part for position, part in items])


def is_plain(value: Any) -> bool:
    """Whether ``torch.load(weights_only=True)`` can read it: tensors, numbers, plain containers."""
    if type(value) is dict:
        return all(is_plain(item) for pair in value.items() for item in pair)
    if type(value) in (list, tuple):
        return all(map(is_plain, value))
    return type(value) in _PLAIN


def with_items(value: Any, items: Iterable[tuple[Any, Any]]) -> Any:
    """A copy of a mapping with new items; of its own type, since callers may read attributes."""
    changed = copy(value)
    for key, item in items:
        changed[key] = item
    return changed


def _like(value: Any, parts: list[Any]) -> Any:
    """A tuple or list of the type of ``value``."""
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
