"""The rows of a resumed run, read again from the file that its checkpoint tells of."""

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
    """What a checkpoint tells of the file that holds the rows."""

    path: str
    """The file, when it was saved."""
    rows: int
    bytes: int
    crc: int
    """Of these bytes."""
    first: int
    """That of the first line, by which a file that was changed is known."""


def find_rows(
    state: Mapping[str, Any], step: int, own: Path | None, checkpoint: Any
) -> tuple[list[Row], bool]:
    """The rows of the run that saved a state.

    They are looked for in the file that the resumed run writes, in the one that the state names,
    and beside the checkpoint, or at the same place relative to one of the folders above it, as in
    a run that was moved. The right file is known by its contents. Where there is none, a warning
    says so, and what is left of the rows is returned.

    Args:
        state: of :meth:`lit_credit.runs.history.History.state`, or of an older version, with all
            of the rows.
        step: up to which the file's rows of after the save are rows of the run that goes on; what
            was measured later is measured again. -1 leaves out all that the state does not tell of.
        own: the file that it writes, or None.
        checkpoint: the file that it is resumed from, or None.

    Returns:
        The rows, and whether these are all.
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
            # Measured after the checkpoint was saved, and before the next step was taken.
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
    """Files that may hold the rows, the likeliest first, each once."""
    saved, found = Path(told.path), dict.fromkeys([] if own is None else [own])
    found[saved] = None
    if not told.rows:  # nothing that the file could be known by, unless there is no other
        alone = not any(saved.parent.glob(f"{_literal(saved.stem)}.*{saved.suffix}"))
        return iter([saved] if alone else [])
    for path in [*found]:  # kept under another name, where another run has begun
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
    """The rows before the first line that is not one."""
    rows: list[Row] = []
    for line in data.splitlines():
        try:
            rows += rows_of(line + b"\n", "")
        except ValueError:
            break
    return rows


def _left(told: _Told, own: Path | None, seen: list[Path]) -> tuple[list[Row], str]:
    """What a file that is not as it was still has, and what is the matter."""
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
