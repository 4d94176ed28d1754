"""Rows of measurements in a file that survives the run."""

import json
import math
import os
from pathlib import Path
from typing import Any

__all__ = ["History", "Row", "read_history"]

Row = dict[str, Any]
"""``{"step": int, "epoch": int, "name": str, "values": {tag: float}}``."""

_INFINITIES = {"Infinity": math.inf, "-Infinity": -math.inf}


class History:
    """An append-only JSON lines file, one row a measurement, flushed row by row.

    In the file NaN is ``null`` and infinities are the strings ``"Infinity"`` and ``"-Infinity"``,
    so that any JSON reader takes it.

    Args:
        path: the file, or None to keep the rows in memory only.
        rows: rows measured before, for a resumed run: the file is rewritten to hold just these.
            Without any, a file found at ``path`` is kept under the next free of the names
            ``<name>.1.jsonl``, ``<name>.2.jsonl``.
    """

    def __init__(self, path: Path | None = None, rows: list[Row] | None = None) -> None:
        self.path = path
        self.rows: list[Row] = list(rows or [])
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.rows:
            _replace(path, "".join(_encode(row) for row in self.rows))
        elif path.exists():
            path.rename(_free_name(path))

    def append(self, step: int, epoch: int, name: str, values: dict[str, float]) -> Row:
        """Add one row to memory and file.

        Args:
            step: optimizer steps taken so far.
            epoch: epochs completed so far; 0 is before training.
            name: the diagnostic.
            values: tag to number.
        """
        row = {"step": step, "epoch": epoch, "name": name, "values": values}
        self.rows.append(row)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_encode(row))
        return row


def read_history(path: str | Path) -> list[Row]:
    """Read the rows of a history file; a last line cut off by a kill is left out.

    Args:
        path: a file written by :class:`History`.

    Returns:
        The rows, in the order of measurement.

    Raises:
        ValueError: if a line other than the last is not a row.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            row["values"] = {tag: _decode(value) for tag, value in row["values"].items()}
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines):
                break
            raise ValueError(
                f"{path}, line {number}: not a row of a history: {line[:60]!r}. "
                "Remove the line, or the file."
            ) from error
        rows.append(row)
    return rows


def _encode(row: Row) -> str:
    values = {
        tag: value if math.isfinite(value) else _name_of(value)
        for tag, value in row["values"].items()
    }
    return json.dumps({**row, "values": values}, allow_nan=False) + "\n"


def _name_of(value: float) -> str | None:
    if math.isnan(value):
        return None
    return "Infinity" if value > 0 else "-Infinity"


def _decode(value: float | str | None) -> float:
    if value is None:
        return math.nan
    return _INFINITIES[value] if isinstance(value, str) else float(value)


def _replace(path: Path, text: str) -> None:
    scratch = path.with_suffix(".partial")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)


def _free_name(path: Path) -> Path:
    # With a dot: `<name>-1.jsonl` is the file of a second diagnostic of one name.
    number = 1
    while (free := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    return free
