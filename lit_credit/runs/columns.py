"""Histories as arrays, one per tag: a fraction of the memory and time of rows."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from lit_credit.runs.history_rows import Row, read_history

__all__ = ["Columns", "Line", "as_columns", "read_columns"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_KEYS = ("step", "epoch", "name", "values")
_INFINITIES = {"Infinity", "-Infinity"}


class Line(NamedTuple):
    """A curve: the values of a tag, by epochs or steps that increase."""

    places: Integers
    values: Floats


class _Column(NamedTuple):
    """The values of a tag, and the rows that have it; None for all rows."""

    values: Floats
    rows: Integers | None


class Columns(Sequence[Row]):
    """The rows of a history in the order of a run, held as arrays.

    It is a sequence of rows like the list that ``read_history`` returns: an index gives a mapping.
    The key ``proved`` is left out.

    Args:
        step: optimizer step of each row.
        epoch: epoch of each row.
        name: name of the diagnostic.
        columns: tag to its values.
    """

    def __init__(
        self, step: Integers, epoch: Integers, name: str, columns: dict[str, _Column]
    ) -> None:
        self.step, self.epoch, self.name = step, epoch, name
        self._columns = columns
        self._lines: dict[tuple[str, str], Line] = {}

    @property
    def tags(self) -> list[str]:
        """The tags, in the order in which they appear first."""
        return list(self._columns)

    def line(self, tag: str, by: str = "epoch") -> Line:
        """The values of a tag; of several rows in an epoch, the first one counts.

        Args:
            tag: the quantity; without values, the line is empty.
            by: ``epoch`` or ``step``.
        """
        if (tag, by) not in self._lines:
            self._lines[tag, by] = self._line(tag, self.step if by == "step" else self.epoch)
        return self._lines[tag, by]

    def _line(self, tag: str, places: Integers) -> Line:
        column = self._columns.get(tag)
        if column is None:
            return Line(places[:0], np.empty(0))
        places = places if column.rows is None else places[column.rows]
        first = np.ones(len(places), dtype=bool)
        first[1:] = places[1:] > places[:-1]
        return Line(places[first], column.values[first])

    def by_steps(self) -> "Columns":
        """The same rows, with the step in place of the epoch."""
        return Columns(self.step, self.step, self.name, self._columns)

    def to_bytes(self) -> bytes:
        """The rows as the contents of an ``.npz`` file."""
        words = np.array(json.dumps([self.name, *self._columns]))
        arrays: dict[str, Any] = {"words": words, "step": self.step, "epoch": self.epoch}
        for index, column in enumerate(self._columns.values()):
            arrays[f"values{index}"] = column.values
            if column.rows is not None:
                arrays[f"rows{index}"] = column.rows
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def of_bytes(cls, data: bytes) -> "Columns":
        """Read what :meth:`to_bytes` returned."""
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            name, *tags = json.loads(str(file["words"]))
            columns = {
                tag: _Column(
                    file[f"values{index}"],
                    file[f"rows{index}"] if f"rows{index}" in file.files else None,
                )
                for index, tag in enumerate(tags)
            }
            return cls(file["step"], file["epoch"], name, columns)

    def only(self, keep: Callable[[str], bool]) -> "Columns":
        """The same rows with some of their tags."""
        found = {tag: column for tag, column in self._columns.items() if keep(tag)}
        return Columns(self.step, self.epoch, self.name, found)

    def __len__(self) -> int:
        return len(self.step)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        values = {
            tag: float(column.values[place])
            for tag, column in self._columns.items()
            if (place := _place(column, at)) is not None
        }
        step, epoch = int(self.step[at]), int(self.epoch[at])
        return {"step": step, "epoch": epoch, "name": self.name, "values": values}

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))


def _place(column: _Column, row: int) -> int | None:
    """Where a column has the value of a row."""
    if column.rows is None:
        return row
    at = int(np.searchsorted(column.rows, row))
    return at if at < len(column.rows) and column.rows[at] == row else None


def read_columns(path: Path, keep: Callable[[str], bool] = lambda tag: True) -> Columns | None:
    """Read a history file whose rows are in the order of a run.

    Args:
        path: the file.
        keep: whether the values of a tag are wanted.

    Returns:
        The columns. None if there are no rows, or they are not in order.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if a line is not a row, see :func:`read_history`.
    """
    data = path.read_bytes()
    columns = _at_once(data, keep)
    if columns is None:  # a broken line, a rare form, or no order: line by line
        columns = as_columns(read_history(path), keep)
    return columns


def as_columns(
    rows: Sequence[Row], keep: Callable[[str], bool] = lambda tag: True
) -> Columns | None:
    """The rows as columns; None if there are none, or they are not in the order of a run.

    Args:
        rows: rows of a history.
        keep: whether the values of a tag are wanted.
    """
    if not rows:
        return None
    steps, epochs, values = ([row[key] for row in rows] for key in ("step", "epoch", "values"))
    return _ordered(steps, epochs, str(rows[0].get("name", "")), values, keep)


def _at_once(data: bytes, keep: Callable[[str], bool]) -> Columns | None:
    """All lines parsed as one list; None if that may differ from what each line says by itself."""
    lines = data.count(b"\n")
    if not lines or not data.endswith(b"}\n") or data.count(b"}\n{") != lines - 1:
        return None
    try:
        rows: Any = json.loads(b"[%s]" % data[:-1].replace(b"\n", b","))
        steps, epochs, names, values = (list(map(itemgetter(key), rows)) for key in _KEYS)
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    usual = len(rows) == lines and set(map(len, rows)) == {len(_KEYS)}
    for numbers in (steps, epochs):
        usual = usual and set(map(type, numbers)) == {int}
        usual = usual and min(numbers) >= 0 and max(numbers) < 2**53
    if not usual or set(map(type, names)) != {str} or set(map(type, values)) != {dict}:
        return None
    # Each key once: a twin would be lost. No mapping reaches over two lines.
    keys = len(_KEYS) * lines + sum(map(len, values))
    if data.count(b'":') != keys or data.count(b"{") != 2 * lines:
        return None
    kinds = set(map(type, chain.from_iterable(map(dict.values, values))))
    if not kinds <= {float, int, type(None), str}:
        return None
    if str in kinds:
        texts = {x for row in values for x in row.values() if isinstance(x, str)}
        if not texts <= _INFINITIES:
            return None
    return _ordered(steps, epochs, names[0], values, keep)


def _ordered(
    steps: list[int],
    epochs: list[int],
    name: str,
    values: list[dict[str, Any]],
    keep: Callable[[str], bool],
) -> Columns | None:
    step, epoch = (np.array(numbers, dtype=np.int64) for numbers in (steps, epochs))
    later, further = np.diff(step), np.diff(epoch)
    if (later < 0).any() or (further < 0).any() or ((later == 0) & (further == 0)).any():
        return None
    layouts = dict.fromkeys(map(tuple, values))
    tags = [tag for tag in dict.fromkeys(chain.from_iterable(layouts)) if keep(tag)]
    try:
        return Columns(step, epoch, name, {tag: _column(values, tag) for tag in tags})
    except OverflowError:  # a whole number beyond float64
        return None


def _column(values: list[dict[str, Any]], tag: str) -> _Column:
    try:
        found, rows = list(map(itemgetter(tag), values)), None
    except KeyError:
        rows = np.array([i for i, row in enumerate(values) if tag in row], dtype=np.int64)
        found = [values[i][tag] for i in rows.tolist()]
    return _Column(np.array(found, dtype=np.float64), rows)  # None is NaN, "Infinity" is infinite
