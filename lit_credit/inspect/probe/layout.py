"""Finding which parts of a batch have one entry per row."""

from collections import UserDict
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from enum import Enum
from numbers import Number
from pathlib import PurePath
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lit_credit.utils.nested import described, items_of

__all__ = [
    "Layout",
    "UnknownRows",
    "check_dense",
    "is_record",
    "proved_layout",
    "row_layout",
    "same_content",
]

Layout = Literal["row", "whole", "count"] | dict[Any, Any]
"""Which parts of a batch have one entry per row. The layout of a container maps its keys to the
layouts of its parts. The layout of a part is ``row`` (the first dimension, or the items of a list,
are rows), ``whole`` (the part belongs to all rows) or ``count`` (the number of rows)."""


_PLAIN = (Number, str, bytes, type(None), np.generic, Enum, PurePath, torch.device, torch.dtype)


_EMPTY = (*_PLAIN, list, tuple, dict)


class UnknownRows(ValueError):
    """The rows of a batch are not known; the text says why."""


def row_layout(batch: Any, other: Any = None, *, fields: bool = False) -> Layout:
    """Find which parts of a batch have one entry per row, if only one answer is possible.

    The first dimension of every tensor with dimensions must have the same size N. A list of N texts
    or numbers has one entry per row too. A list of tensors of one form is ambiguous: it may hold
    one tensor per row, as sequences do, or views that have N rows each. It is taken for views if a
    tensor outside such lists has N entries, and the list does not have N items. A tuple that is the
    batch itself is always taken for fields.

    A second batch of the loader tells more. A tensor that is the same in both, while others differ,
    belongs to all rows if its size is not N: a mask (T, T), the weights of classes. If its size is
    N, it may belong to each row or to all, unless its entries are all equal.

    Args:
        batch: a batch of a loader.
        other: another batch of the loader, with any number of rows; None if there is no other.
        fields: take a list that is the batch itself, and a list of N tensors, for fields.

    Raises:
        UnknownRows: if several answers are possible, or a part cannot be cut, such as sparse,
            nested and packed tensors, and objects that do not show their tensors.
    """
    twin = batch if other is None or same_content(batch, other) else other
    compared = twin is not batch
    columns = list(_columns(batch, twin, compared))
    sizes = {column.sizes for column in columns if not column.constant}
    if len(sizes) != 1:
        begin = sorted({size for size, _ in sizes})
        found = f"tensors begin with {begin} entries" if begin else "there is not a tensor"
        raise UnknownRows(f"{found} in {described(batch)}")
    rows, rows_of_twin = sizes.pop()
    either = [c for c in columns if c.constant and c.sizes[0] == rows and not c.alike]
    if either and rows == rows_of_twin:
        raise UnknownRows(
            f"a tensor of {rows} entries is the same in two batches of {rows} rows, so that it may "
            f"belong to each row or to all, in {described(batch)}"
        )
    is_record = type(batch) is tuple or (fields and type(batch) is list)
    witnesses = [_has_witness(p, rows, fields) for p in (batch if is_record else [batch])]
    if not any(witnesses):
        raise UnknownRows(f"lists may have a tensor a row, or all rows, in {described(batch)}")
    return _layout(batch, twin, (rows, rows_of_twin), compared)


def proved_layout(two: Any, three: Any) -> Layout:
    """Find which parts of a batch have one entry per row, by batches of 2 and of 3 samples.

    Args:
        two: a batch made of two samples.
        three: a batch made of the same two samples and one more.

    Raises:
        UnknownRows: if a part changes in another way than with the number of samples.
    """
    if isinstance(two, Tensor | np.ndarray):
        check_dense(two)
        sizes = tuple(len(part) if getattr(part, "ndim", 0) else -1 for part in (two, three))
        if sizes == (2, 3):
            return "row"
        if sizes == (-1, -1) or same_content(two, three):
            return "whole"
        raise UnknownRows(f"of 2 and 3 samples it has {described(two)} and {described(three)}")
    if is_record(two):
        parts, others = dict(items_of(two)), dict(items_of(three))
        if type(two) in (list, tuple) and (len(parts), len(others)) == (2, 3):
            if _is_plain(two):
                return "row"
            raise UnknownRows(f"a list has a tensor a sample, {described(two)}")
        if parts.keys() != others.keys():
            raise UnknownRows(f"of 2 and 3 samples it has {described(two)} and {described(three)}")
        return {key: proved_layout(parts[key], others[key]) for key in parts}
    if (type(two), two, three) == (int, 2, 3):
        return "count"
    if not isinstance(two, _PLAIN):
        raise UnknownRows(f"a {type(two).__name__} does not show its tensors")
    return "whole"


def same_content(one: Any, other: Any) -> bool:
    """Whether two values are the same, down to the entries of tensors."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        if one.is_nested or one.layout != torch.strided:
            return one is other
        return (one.shape, one.dtype) == (other.shape, other.dtype) and bool(
            torch.equal(one, other)
        )
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    if is_record(one):
        parts, others = dict(items_of(one)), dict(items_of(other))
        return parts.keys() == others.keys() and all(
            same_content(part, others[key]) for key, part in parts.items()
        )
    return one is other or (isinstance(one, _PLAIN) and bool(one == other))


class _Column(NamedTuple):
    """A tensor of one batch, compared with the tensor at its place in another batch."""

    sizes: tuple[int, int]
    constant: bool
    alike: bool


def _columns(value: Any, twin: Any, compared: bool) -> Iterator[_Column]:
    """All tensors that have a first dimension."""
    if isinstance(value, Tensor | np.ndarray):
        check_dense(value)
        if value.ndim and getattr(twin, "ndim", 0):
            constant = compared and same_content(value, twin)
            dense = torch.as_tensor(value)
            alike = constant and bool((dense == dense[:1]).all())
            yield _Column((len(value), len(twin)), constant, alike)
        elif value.ndim:
            raise UnknownRows(f"one batch has {described(value)} where another has none")
    elif is_record(value):
        if type(value) in (list, tuple) and _is_plain(value):
            return
        parts, others = dict(items_of(value)), dict(items_of(twin))
        if parts.keys() != others.keys():
            raise UnknownRows(f"batches differ in form: {described(value)}, {described(twin)}")
        for key, part in parts.items():
            yield from _columns(part, others[key], compared)
    elif not isinstance(value, _PLAIN):
        raise UnknownRows(f"a {type(value).__name__} does not show its tensors")


def _layout(value: Any, twin: Any, rows: tuple[int, int], compared: bool) -> Layout:
    if isinstance(value, Tensor | np.ndarray):
        return "row" if value.ndim and (len(value), len(twin)) == rows else "whole"
    if not is_record(value):
        return "whole"
    if type(value) in (list, tuple) and _is_plain(value):
        fits = isinstance(twin, list | tuple) and (len(value), len(twin)) == rows
        if fits and compared and same_content(value, twin):
            raise UnknownRows(f"a list of {len(value)} is the same in two batches of so many rows")
        return "row" if fits else "whole"
    others = dict(items_of(twin))
    return {key: _layout(part, others.get(key), rows, compared) for key, part in items_of(value)}


def _has_witness(value: Any, rows: int, fields: bool) -> bool:
    """Whether a tensor outside lists of similar tensors has as many entries as there are rows.

    Raises:
        UnknownRows: if a list has as many items as there are rows.
    """
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim > 0 and len(value) == rows
    is_list = type(value) in (list, tuple) and not _is_plain(value)
    if is_list and len({_form(part) for part in value}) == 1:
        if len(value) == rows and not fields:
            raise UnknownRows(f"{described(value)} may be {rows} rows, or {rows} parts of all")
        return False
    witnesses = [_has_witness(part, rows, fields) for _, part in items_of(value)]  # all may raise
    return any(witnesses)


def _form(value: Any) -> Any:
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim, value.dtype
    return type(value), tuple((key, _form(part)) for key, part in items_of(value))


def is_record(value: Any) -> bool:
    """Whether ``value`` is a container that can be taken apart and rebuilt."""
    if isinstance(value, PackedSequence):
        return False
    if isinstance(value, Mapping):  # other mappings, as tensordict's, cut rows themselves
        return isinstance(value, dict | UserDict)
    return isinstance(value, tuple | list) or (is_dataclass(value) and not isinstance(value, type))


def _is_plain(value: Any) -> bool:
    """Whether a value, or everything in a container, is text, a number or the like."""
    items = items_of(value)
    return all(_is_plain(part) for _, part in items) if items else isinstance(value, _EMPTY)


def check_dense(value: Any) -> None:
    """Refuse a tensor whose rows cannot be cut or joined."""
    if isinstance(value, Tensor) and (value.is_nested or value.layout != torch.strided):
        kind = "nested" if value.is_nested else "sparse"
        raise UnknownRows(f"a {kind} tensor is not cut or joined")
