"""Rows of measurements in a file that survives the run."""

import json
import math
import os
import warnings
from pathlib import Path
from typing import Any

from lit_credit.utils.files import check_folder, reason_of
from lit_credit.utils.paths import local_path

__all__ = ["History", "Row", "read_history"]

Row = dict[str, Any]
"""``{"step": int, "epoch": int, "name": str, "values": {tag: float}}``.

The first row may also have ``"proved": {statement: relative error}``: the assumptions about the
module that numbers confirmed.
"""

_INFINITIES = {"Infinity": math.inf, "-Infinity": -math.inf}


class History:
    """An append-only JSON lines file, one row a measurement, flushed row by row.

    A row that cannot be written, because the disk is full, stays in memory and in checkpoints, and
    is written before the next one; there is one warning.

    In the file NaN is ``null`` and infinities are the strings ``"Infinity"`` and ``"-Infinity"``,
    so that any JSON reader takes it.

    Args:
        path: the file, or None to keep the rows in memory only.
        rows: rows measured before, for a resumed run: the file is rewritten to hold just these.
            Without any, a file found at ``path`` is kept under the next free of the names
            ``<name>.1.jsonl``, ``<name>.2.jsonl``.

    Raises:
        ValueError: if the folder of ``path`` cannot be made or written to.
    """

    def __init__(self, path: Path | None = None, rows: list[Row] | None = None) -> None:
        path = None if path is None else Path(local_path(path))
        self.path = path
        self.rows: list[Row] = list(rows or [])
        self._in_file = self._end = 0  # rows and bytes that the file holds for certain
        self._warned = False
        if path is None:
            return
        check_folder(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.rows:
            self._in_file, self._end = len(self.rows), _replace(path, _lines(self.rows))
        elif path.exists():
            path.rename(_free_name(path))

    def append(
        self,
        step: int,
        epoch: int,
        name: str,
        values: dict[str, float],
        proved: dict[str, float] | None = None,
    ) -> Row:
        """Add one row to memory and file.

        Args:
            step: optimizer steps taken so far.
            epoch: epochs completed so far; 0 is before training.
            name: the diagnostic.
            values: tag to number.
            proved: statement to relative error; the row has it if there is any.
        """
        row: Row = {"step": step, "epoch": epoch, "name": name, "values": values}
        if proved:
            row["proved"] = proved
        self.rows.append(row)
        if self.path is not None:
            self._write(self.path)
        return row

    def _write(self, path: Path) -> None:
        """Write the rows that the file lacks."""
        try:
            if self._in_file and not (path.exists() and path.stat().st_size == self._end):
                self._in_file = self._end = 0  # somebody else has changed it: all rows again
            data = _lines(self.rows[self._in_file :])
            _append(path, self._end, data)
        except OSError as error:
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"{path} cannot be written: {reason_of(error)}. Its rows are kept in memory "
                    "and in checkpoints, and are written as soon as that works again.",
                    stacklevel=2,
                )
            return
        self._in_file, self._end = len(self.rows), self._end + len(data)


def read_history(path: str | Path) -> list[Row]:
    """Read the rows of a history file; a last line cut off by a kill is left out.

    Args:
        path: a file written by :class:`History`.

    Returns:
        The rows, in the order of measurement.

    Raises:
        ValueError: if any other line is not a row.
    """
    data = Path(local_path(path)).read_bytes()
    lines = data.rstrip().split(b"\n") if data.strip() else []
    cut_off = not data.endswith(b"\n")
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(_row(line))
        except (ValueError, RecursionError) as error:
            if cut_off and number == len(lines) and isinstance(error, json.JSONDecodeError):
                break
            reason = error if isinstance(error, _NotARow) else _shown(line)
            raise ValueError(
                f"{path}, line {number}: not a row of a history: {reason}. "
                "Remove the line, or the file."
            ) from error
    return rows


class _NotARow(ValueError):
    """JSON, but not that of a row."""


def _row(line: bytes) -> Row:
    row = json.loads(line.decode("utf-8"), object_pairs_hook=_without_twins)
    if not isinstance(row, dict):
        raise _NotARow(f"{_shown(line)} is not a mapping")
    for key in ("step", "epoch"):
        if type(row.get(key)) is not int or not 0 <= row[key] < 2**53:
            given = _shown(json.dumps(row[key])) if key in row else "missing"
            raise _NotARow(f"`{key}` is {given}, expected a whole number, 0 or more")
    if not isinstance(row.get("name"), str):
        raise _NotARow("`name` is missing, or is not text")
    for key in {"values", *(row.keys() & {"proved"})}:
        if not isinstance(row.get(key), dict):
            raise _NotARow(f"`{key}` is missing, or is not a mapping of names to numbers")
        row[key] = {tag: _decode(tag, value) for tag, value in row[key].items()}
    return row


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twin = next(key for key in keys if keys.count(key) > 1)
        raise _NotARow(f"the key {_shown(twin)} stands twice")
    return found


def _shown(text: str | bytes) -> str:
    return repr(text[:60] if isinstance(text, str) else text[:60].decode("utf-8", "replace"))


def _lines(rows: list[Row]) -> bytes:
    return "".join(map(_encode, rows)).encode()


def _encode(row: Row) -> str:
    numbers = {
        key: {
            tag: value if math.isfinite(value) else _name_of(value)
            for tag, value in row[key].items()
        }
        for key in ("values", "proved")
        if key in row
    }
    return json.dumps({**row, **numbers}, allow_nan=False) + "\n"


def _name_of(value: float) -> str | None:
    if math.isnan(value):
        return None
    return "Infinity" if value > 0 else "-Infinity"


def _decode(tag: str, value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, str) and value in _INFINITIES:
        return _INFINITIES[value]
    try:
        if type(value) in (int, float):
            return float(value)
    except OverflowError:
        pass
    raise _NotARow(f"{_shown(tag)} is {_shown(json.dumps(value))}, expected a number")


def _append(path: Path, end: int, data: bytes) -> None:
    """Write behind the first ``end`` bytes; what lies there is of a line that was not finished."""
    with path.open("ab", buffering=0) as file:
        if file.seek(0, os.SEEK_END) > end:
            file.truncate(end)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            if len(rest) < len(data):
                file.truncate(end)
            raise


def _replace(path: Path, data: bytes) -> int:
    scratch = path.with_suffix(".partial")
    try:
        scratch.write_bytes(data)
        os.replace(scratch, path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
    return len(data)


def _free_name(path: Path) -> Path:
    # With a dot: `<name>-1.jsonl` is the file of a second diagnostic of one name.
    number = 1
    while (free := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    return free
