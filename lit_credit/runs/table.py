"""Writing tables as CSV."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["TableRow", "cell_text", "write_table"]

TableRow = Mapping[str, str | int | float]
"""Column to cell."""


def write_table(path: Path, rows: Sequence[TableRow]) -> None:
    """Write rows with equal columns as CSV; NaN becomes an empty cell.

    Args:
        path: path of the file; an older file is replaced.
        rows: at least one row.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rows[0])
        writer.writerows([cell_text(row[column]) for column in rows[0]] for row in rows)


def cell_text(value: str | int | float) -> str:
    """A cell of a CSV; NaN is empty."""
    if not isinstance(value, float):
        return str(value)
    return "" if math.isnan(value) else f"{value:.8g}"
