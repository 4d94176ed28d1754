"""Writing tables as CSV."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from lit_credit.runs.files import write_files

__all__ = ["TableRow", "cell_text", "write_table"]

TableRow = Mapping[str, str | int | float]
"""Column to cell."""


def write_table(path: Path, rows: Sequence[TableRow]) -> None:
    """Write rows with equal columns as CSV; NaN becomes an empty cell.

    Args:
        path: path of the file; an older file is replaced when the new one is complete.
        rows: at least one row.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([cell_text(row[column]) for column in rows[0]] for row in rows)
    write_files(path.parent, {path.name: text.getvalue().encode("utf-8")})


def cell_text(value: str | int | float) -> str:
    """A cell of a CSV; NaN is empty."""
    if not isinstance(value, float):
        return str(value)
    return "" if math.isnan(value) else f"{value:.8g}"
