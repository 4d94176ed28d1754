"""The table of a sweep: a row per run, written as the runs end."""

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_credit.cli.sweep.cell import Cell
from lit_credit.cli.sweep.grid import as_word
from lit_credit.runs.files import write_files
from lit_credit.runs.table import write_table

__all__ = ["SUFFIXES", "SweepTable", "write_rows"]

SUFFIXES = (".csv", ".parquet")
_MEASURED = ("seconds", "cpu_seconds", "peak_memory", "epoch", "step")
_LARGEST_SHARE = 0.05
"""Of a sweep's time, the share that goes into writing the table again."""


class SweepTable:
    """The table of a sweep, whose file is replaced as runs end: a reader never sees half of it.

    Writing takes at most a twentieth of the time: a large table is not written after every run.

    Args:
        path: the file, ``.csv`` or ``.parquet``.
        cells: all runs, in the order of the rows.
    """

    def __init__(self, path: Path, cells: Sequence[Cell]) -> None:
        self.path, self.cells = path, cells
        self._results = {cell.name: cell.result() for cell in cells}
        self._status = {
            name: "unfinished" if result is None else "finished"
            for name, result in self._results.items()
        }
        self._next_write = 0.0

    @property
    def todo(self) -> list[Cell]:
        """The runs without a result."""
        return [cell for cell in self.cells if self._results[cell.name] is None]

    def ended(self, cell: Cell) -> dict[str, Any] | None:
        """Take the result of a run that has ended, and return it; None if the run failed."""
        result = self._results[cell.name] = cell.result()
        self._status[cell.name] = "failed" if result is None else "finished"
        if (start := time.monotonic()) >= self._next_write:
            self.write()
            now = time.monotonic()
            self._next_write = now + (now - start) / _LARGEST_SHARE
        return result

    def write(self) -> list[dict[str, Any]]:
        """Write the table, and return its rows."""
        rows = self.rows()
        write_rows(self.path, rows)
        return rows

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table: overrides, seed, status, what was measured, and the values."""
        overridden = dict.fromkeys(key for cell in self.cells for key in cell.point.overrides)
        return [self._row(cell, overridden) for cell in self.cells]

    def _row(self, cell: Cell, overridden: Mapping[str, Any]) -> dict[str, Any]:
        result = self._results[cell.name] or {}
        return {
            **({"case": cell.point.case} if cell.point.case else {}),
            **{key: cell.point.overrides.get(key) for key in overridden},
            "seed_everything": cell.seed,
            "status": self._status[cell.name],
            **{key: result.get(key) for key in _MEASURED},
            "folder": str(cell.folder),
            **result.get("values", {}),
        }


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV or Parquet, depending on the suffix; missing values are left empty.

    Args:
        path: the file; an older file is replaced when the new one is complete.
        rows: at least one.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    if path.suffix == ".csv":
        filled = [["" if v is None else v for v in column] for column in columns.values()]
        lines = zip(*filled, strict=True)
        write_table(path, [dict(zip(columns, line, strict=True)) for line in lines])
        return
    import pyarrow  # an optional dependency
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    write_files(path.parent, {path.name: buffer.getvalue()})


def _column(values: list[Any]) -> list[Any]:
    """Keep columns of numbers; convert the values of any other column to text."""
    if all(isinstance(value, int | float | None) for value in values):
        return values
    return [None if value is None else as_word(value) for value in values]
