"""Counting, cutting and joining the rows of batches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_credit.inspect.probe.layout import (
    Layout,
    UnknownRows,
    check_dense,
    is_record,
    row_layout,
    same_content,
)
from lit_credit.utils.nested import described, items_of, with_items

__all__ = [
    "Chunks",
    "can_join",
    "count_rows",
    "cut_rows",
    "first_rows",
    "join_rows",
    "known_rows",
    "split_rows",
]


def count_rows(batch: Any, layout: Layout | None = None) -> int | None:
    """Count the rows of a batch; None if they are not known.

    Args:
        batch: nested tuples, lists, mappings and dataclasses of tensors.
        layout: the layout of the loader's batches; None takes that of :func:`row_layout`.

    Example:
        >>> x, y = torch.ones(8, 3), torch.ones(8)
        >>> count_rows((x, y)), count_rows((x, y, torch.ones(3, 3)))
        (8, None)
    """
    try:
        found = _sizes(batch, row_layout(batch) if layout is None else layout)
    except UnknownRows:
        return None
    return found.pop() if len(found) == 1 else None


def first_rows(batch: Any, count: int, layout: Layout | None = None) -> Any:
    """At most ``count`` rows of a batch; the whole batch if its rows are not known.

    Example:
        >>> [len(part) for part in first_rows((torch.ones(9, 2), torch.ones(9)), 4)]
        [4, 4]
    """
    rows = count_rows(batch, layout)
    return batch if rows is None or rows <= count else cut_rows(batch, 0, count, layout)


def split_rows(batch: Any, most: int, layout: Layout | None = None) -> list[Any]:
    """Split a batch into pieces of at most ``most`` rows; into one if its rows are not known.

    Example:
        >>> [len(x) for (x,) in split_rows((torch.ones(9),), 4)]
        [4, 4, 1]
    """
    rows = count_rows(batch, layout)
    if rows is None or rows <= most:
        return [batch]
    layout = row_layout(batch) if layout is None else layout
    return [cut_rows(batch, i, min(i + most, rows), layout) for i in range(0, rows, most)]


def cut_rows(batch: Any, start: int, stop: int, layout: Layout | None = None) -> Any:
    """Rows ``start`` to ``stop`` of a batch, as views.

    Raises:
        UnknownRows: if the rows of the batch are not known.
    """
    layout = row_layout(batch) if layout is None else layout
    if layout == "row":
        return batch[start:stop]
    if layout == "count":
        return stop - start
    if layout == "whole" or not layout:
        return batch
    parts = [(key, cut_rows(part, start, stop, layout[key])) for key, part in items_of(batch)]
    return with_items(batch, parts)


def can_join(one: Any, other: Any, layout: Layout) -> bool:
    """Whether rows of two batches can be joined in one batch.

    Their rows must have one shape and type, and all other parts must be equal.
    """
    if layout == "count":
        return True
    if layout == "whole":
        return same_content(one, other)
    if layout == "row":
        if type(one) is not type(other):
            return False
        if isinstance(one, Tensor | np.ndarray):
            return (one.shape[1:], one.dtype) == (other.shape[1:], other.dtype)
        return True
    parts, others = dict(items_of(one)), dict(items_of(other))
    keys = layout.keys()
    return parts.keys() == others.keys() == keys and all(
        can_join(parts[key], others[key], layout[key]) for key in keys
    )


def join_rows(batches: Sequence[Any], layout: Layout) -> Any:
    """Join the rows of batches that :func:`can_join` into one batch, in memory of its own."""
    first = batches[0]
    if layout == "count":
        return sum(batches)
    if layout == "whole":
        return first.clone() if isinstance(first, Tensor) else first
    if layout == "row":
        if isinstance(first, Tensor):
            return torch.cat(list(batches)) if len(batches) > 1 else first.clone()
        if isinstance(first, np.ndarray):
            return np.concatenate(batches)
        return type(first)(item for batch in batches for item in batch)
    columns = {key: [dict(items_of(batch))[key] for batch in batches] for key in layout}
    joined = [(key, join_rows(parts, layout[key])) for key, parts in columns.items()]
    return with_items(first, joined) if joined else first


def _sizes(value: Any, layout: Layout) -> set[int]:
    """The numbers of rows of all parts that have rows."""
    if isinstance(layout, dict):
        parts = dict(items_of(value))
        if not is_record(value) or parts.keys() != layout.keys():
            raise UnknownRows(f"batches differ in form; one is {described(value)}")
        return set().union(*(_sizes(part, layout[key]) for key, part in parts.items()))
    if layout == "row":
        check_dense(value)
        if (
            not isinstance(value, Tensor | np.ndarray | list | tuple)
            or getattr(value, "ndim", 1) < 1
        ):
            raise UnknownRows(f"batches differ in form; a part is {described(value)}")
        return {len(value)}
    return set()


def known_rows(batch: Any, layout: Layout) -> int:
    """Count the rows of a batch whose layout is known.

    Raises:
        UnknownRows: if the batch has another layout.
    """
    rows = count_rows(batch, layout)
    if rows is None:
        raise UnknownRows(f"a batch is of another form than the others, {described(batch)}")
    return rows


class Chunks:
    """Cuts and joins batches to chunks of one size.

    Args:
        layout: the layout of the batches.
        n_samples: number of rows in all.
        chunk_size: rows per chunk; the last chunk, and one whose rows cannot be joined with those
            of the next batch, may have fewer.
    """

    def __init__(self, layout: Layout, n_samples: int, chunk_size: int) -> None:
        self.layout = layout
        self.missing = n_samples
        self.chunk_size = chunk_size
        self.chunks: list[Any] = []
        self.rows: list[int] = []
        self._parts: list[Any] = []
        self._waiting = 0

    def add(self, batch: Any) -> None:
        """Take as many of a batch's rows as are still missing.

        Raises:
            UnknownRows: if the batch has another layout.
        """
        rows, start = min(known_rows(batch, self.layout), self.missing), 0
        self.missing -= rows
        while start < rows:
            if self._parts and not can_join(self._parts[-1], batch, self.layout):
                self._finish()
            stop = min(start + self.chunk_size - self._waiting, rows)
            self._parts.append(cut_rows(batch, start, stop, self.layout))
            self._waiting += stop - start
            if self._waiting == self.chunk_size:
                self._finish()
            start = stop

    def finished(self) -> list[Any]:
        """All chunks, including a smaller last one."""
        if self._parts:
            self._finish()
        return self.chunks

    def _finish(self) -> None:
        self.chunks.append(join_rows(self._parts, self.layout))
        self.rows.append(self._waiting)
        self._parts, self._waiting = [], 0
