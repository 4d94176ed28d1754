"""Rows of unlike columns as a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_credit.cli.sweep.grid import as_word
from lit_credit.runs.table import write_table

__all__ = ["SUFFIXES", "write_rows"]

SUFFIXES = (".csv", ".parquet")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV or Parquet, by the name's ending; what a row lacks is left empty.

    Args:
        path: of the file; an older one is replaced.
        rows: at least one.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    if path.suffix == ".csv":
        filled = [["" if v is None else v for v in column] for column in columns.values()]
        lines = zip(*filled, strict=True)
        write_table(path, [dict(zip(columns, line, strict=True)) for line in lines])
        return
    import pyarrow  # an extra
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def _column(values: list[Any]) -> list[Any]:
    """Numbers as they are, anything else as text."""
    if all(isinstance(value, int | float | None) for value in values):
        return values
    return [None if value is None else as_word(value) for value in values]
