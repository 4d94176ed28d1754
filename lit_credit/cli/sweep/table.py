"""Writing rows with different columns as CSV or Parquet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_credit.cli.sweep.grid import as_word
from lit_credit.runs.table import write_table

__all__ = ["SUFFIXES", "write_rows"]

SUFFIXES = (".csv", ".parquet")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV or Parquet, depending on the suffix; missing values are left empty.

    Args:
        path: the file; an older file is replaced.
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

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def _column(values: list[Any]) -> list[Any]:
    """Keep columns of numbers; convert the values of any other column to text."""
    if all(isinstance(value, int | float | None) for value in values):
        return values
    return [None if value is None else as_word(value) for value in values]
