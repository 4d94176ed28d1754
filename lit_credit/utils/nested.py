"""Finding and changing tensors inside nested tuples, lists, mappings and dataclasses."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from copy import copy, deepcopy
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from lit_credit.utils.short_text import shortened

__all__ = [
    "cloned",
    "described",
    "first_tensor",
    "has_fractions",
    "is_plain",
    "items_of",
    "map_tensors",
    "replace_first",
    "tensors_of",
    "with_items",
]

_PLAIN = (Tensor, bool, int, float, str, type(None))


def described(value: Any, longest: int = 300) -> str:
    """Describe dtypes and shapes of tensors in nested containers, and the range of whole numbers.

    Args:
        value: a batch, or what a net returns.
        longest: largest number of characters.

    Example:
        >>> described({"x": torch.zeros(2, 3), "y": torch.tensor([4, 7]), "id": "a"})
        '{x: float32 (2, 3), y: int64 (2,) from 4 to 7, id: str}'
    """
    return shortened(_described(value), longest)


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        text = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
        if value.dtype in (torch.int64, torch.int32) and value.numel():
            with suppress(RuntimeError):  # after a wrong index a GPU refuses all work
                return f"{text} from {int(value.min())} to {int(value.max())}"
        return text
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_described(item)}' for key, item in value.items())}}}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_described, value))})"
    return "None" if value is None else type(value).__name__


def any_tensor(tensor: Tensor) -> bool:
    """True for every tensor."""
    return True


def first_tensor(value: Any, wanted: Callable[[Tensor], bool] = any_tensor) -> Tensor | None:
    """The first wanted tensor in ``value``, a tensor or nested containers, or None."""
    if isinstance(value, Tensor):
        return value if wanted(value) else None
    parts = (first_tensor(part, wanted) for _, part in items_of(value))
    return next((tensor for tensor in parts if tensor is not None), None)


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A copy of ``value`` with ``change`` applied to every tensor in nested containers."""
    if isinstance(value, Tensor):
        return change(value)
    items = items_of(value)
    changed = [(key, map_tensors(part, change)) for key, part in items]
    return with_items(value, changed) if items else value


def cloned(value: Any) -> Any:
    """Copy a batch into memory of its own, so that changes in place do not reach the original.

    Objects that are not containers, such as graphs, are copied as a whole if that is possible.
    """
    if isinstance(value, Tensor):
        return value.clone()
    items = items_of(value)
    if items:
        return with_items(value, [(key, cloned(part)) for key, part in items])
    if isinstance(value, _PLAIN):
        return value
    try:
        return deepcopy(value)
    except Exception:  # any error: each object, as an open file, may refuse in its own way
        return value


def replace_first(value: Any, leaf: Tensor, wanted: Callable[[Tensor], bool] = any_tensor) -> Any:
    """A copy of ``value`` with ``leaf`` in place of the tensor that :func:`first_tensor` finds."""
    if isinstance(value, Tensor):
        return leaf
    pairs = ((k, part) for k, part in items_of(value) if first_tensor(part, wanted) is not None)
    key, part = next(pairs)
    return with_items(value, [(key, replace_first(part, leaf, wanted))])


def is_plain(value: Any) -> bool:
    """Whether ``torch.load(weights_only=True)`` reads it: tensors, numbers, text, containers."""
    if type(value) is dict:
        return all(is_plain(item) for pair in value.items() for item in pair)
    if type(value) in (list, tuple):
        return all(map(is_plain, value))
    return type(value) in _PLAIN


def items_of(value: Any) -> list[tuple[Any, Any]]:
    """Keys and values of a mapping, places and items of a tuple or list, fields of a dataclass.

    The result is empty for anything else, including a tensor.
    """
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, tuple | list):
        return list(enumerate(value))
    if is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in fields(value)]
    return []


def with_items(value: Any, items: Iterable[tuple[Any, Any]]) -> Any:
    """A copy of a container with new items. The type is kept, since callers may read attributes.

    Args:
        value: a mapping, tuple, list or dataclass.
        items: new items, in the form of :func:`items_of`; all other items stay.
    """
    if isinstance(value, tuple):
        parts = list(value)
        for place, part in items:
            parts[place] = part
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if type(value) is dict:  # torch.compile does not read `copy`
        return {**value, **dict(items)}
    changed = copy(value)
    for key, part in items:
        if isinstance(value, Mapping | list):
            changed[key] = part
        else:
            object.__setattr__(changed, key, part)  # a frozen dataclass has no other way
    return changed


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors in nested tuples, lists, mappings and dataclasses."""
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(value, keep)
    return found


def has_fractions(tensor: Tensor) -> bool:
    """Whether a tensor holds real or complex numbers, not whole numbers."""
    return tensor.is_floating_point() or tensor.is_complex()
