"""Reading and writing rows of measurements as lines of JSON."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_credit.utils.paths import local_path

__all__ = ["Row", "lines_of", "read_history", "rows_of"]

Row = dict[str, Any]
"""``{"step": int, "epoch": int, "name": str, "values": {tag: float}}``.

The first row may also have ``"proved": {statement: relative error}``: the assumptions about the
module that numbers confirmed.
"""

_INFINITIES = {"Infinity": math.inf, "-Infinity": -math.inf}


def read_history(path: str | Path) -> list[Row]:
    """Read the rows of a history file; a last line cut off by a kill is left out.

    Args:
        path: a file written by :class:`History`.

    Returns:
        The rows, in the order of measurement.

    Raises:
        ValueError: if any other line is not a row.
    """
    return rows_of(Path(local_path(path)).read_bytes(), path)


def rows_of(data: bytes, source: object) -> list[Row]:
    """Parse the contents of a history file; see :func:`read_history`.

    Args:
        data: contents of the file.
        source: the file, for the error.

    Raises:
        ValueError: if a line is not a row, except a last line that is cut off.
    """
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
                f"{source}, line {number}: not a row of a history: {reason}. "
                "Remove the line, or the file."
            ) from error
    return rows


class _NotARow(ValueError):
    """A line is JSON, but not a row."""


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


def lines_of(rows: Sequence[Row]) -> bytes:
    """The rows as lines of a history file."""
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
