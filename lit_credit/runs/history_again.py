"""Reading the rows of a resumed run from the file that its checkpoint names."""

import os
import warnings
import zlib
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from lit_credit.runs.history_rows import Row, rows_of
from lit_credit.utils.paths import is_remote, local_path

__all__ = ["find_rows"]


class _Told(NamedTuple):
    """What a checkpoint tells about the file that holds the rows."""

    path: str
    """The file's path when the checkpoint was saved."""
    rows: int
    bytes: int
    crc: int
    """Checksum of these bytes."""
    first: int
    """Checksum of the first line, which identifies a file that was changed later."""


def find_rows(
    state: Mapping[str, Any], step: int, own: Path | None, checkpoint: Any
) -> tuple[list[Row], bool]:
    """Find the rows of the run that saved a state.

    They are searched in the file that the resumed run writes, in the file that the state names,
    and, for a run that was moved, at the same place relative to the folders above the checkpoint.
    The right file is recognised by its contents. If there is none, a warning says so, and the rows
    that are left are returned.

    Args:
        state: from :meth:`lit_credit.runs.history.History.state`, or from an older version, with
            all rows.
        step: rows written after the save are kept up to this step; later ones will be measured
            again. -1 keeps none of them.
        own: the file that the resumed run writes, or None.
        checkpoint: the file that the run is resumed from, or None.

    Returns:
        The rows, and whether these are all rows.
    """
    kept = list(state["rows"])
    if not state.get("file"):
        return kept, True
    told = _Told(**state["file"])
    seen: list[Path] = []
    for path in _places(told, own, checkpoint):
        data = _contents(path)
        if data is None:
            continue
        if len(data) >= told.bytes and zlib.crc32(data[: told.bytes]) == told.crc:
            rows = [*rows_of(data[: told.bytes], path), *kept]
            last = rows[-1]["step"] if rows else -1
            # Rows measured after the checkpoint was saved, and before the next step was taken.
            later = (row for row in _readable(data[told.bytes :]) if last < row["step"] <= step)
            return [*rows, *later], True
        seen.append(path)
    if not told.rows:
        return kept, True
    left, trouble = _left(told, own, seen)
    left = [row for row in left if row["step"] <= state["last_step"]]
    warnings.warn(
        f"{own or told.path}: {trouble}. Of the {told.rows} rows that the checkpoint tells of, the "
        f"history goes on with {len(left)}.",
        stacklevel=2,
    )
    return left + kept, False


def _places(told: _Told, own: Path | None, checkpoint: Any) -> Iterator[Path]:
    """Files that may hold the rows, each once, the likeliest first."""
    saved, found = Path(told.path), dict.fromkeys([] if own is None else [own])
    found[saved] = None
    if not told.rows:  # no contents to recognise: only a single candidate counts
        alone = not any(saved.parent.glob(f"{_literal(saved.stem)}.*{saved.suffix}"))
        return iter([saved] if alone else [])
    for path in [*found]:  # renamed when another run began there
        found |= dict.fromkeys(sorted(path.parent.glob(f"{_literal(path.stem)}.*{path.suffix}")))
    if checkpoint and not is_remote(checkpoint):
        ends = list(
            accumulate(reversed(saved.parts[1:]), lambda end, part: str(PurePath(part, end)))
        )
        folders = Path(local_path(checkpoint, "ckpt_path")).resolve().parents
        found |= dict.fromkeys(folder / end for folder in folders for end in ends)
    return iter(found)


def _literal(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _contents(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None


def _readable(data: bytes) -> list[Row]:
    """The rows before the first line that is not a row."""
    rows: list[Row] = []
    for line in data.splitlines():
        try:
            rows += rows_of(line + b"\n", "")
        except ValueError:
            break
    return rows


def _left(told: _Told, own: Path | None, seen: list[Path]) -> tuple[list[Row], str]:
    """The rows that a changed file still has, and a text about what is wrong with it."""
    for path in seen:
        data = _contents(path) or b""
        if zlib.crc32(data[: data.find(b"\n") + 1]) == told.first:
            rows = _readable(data)[: told.rows]
            return rows, f"{path} is shorter than it was, or was changed"
    for path in filter(None, (own, Path(told.path))):
        if path in seen:
            return [], f"{path} does not begin as that of the run did"
        if os.path.lexists(path):
            return [], f"{path} cannot be read"
    return [], "there is no such file any more"
