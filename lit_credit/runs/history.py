"""Rows of measurements in a file that survives the run."""

import os
import time
import warnings
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lit_credit.runs.files import check_folder, reason_of
from lit_credit.runs.history_again import find_rows
from lit_credit.runs.history_rows import Row, lines_of, read_history
from lit_credit.utils.paths import local_path

__all__ = ["History", "Row", "read_history"]


class History:
    """An append-only JSON lines file, one row a measurement, flushed row by row.

    A row that cannot be written, because the disk is full, stays in memory and in checkpoints, and
    is written before the next one; there is one warning. Checkpoints hold no other rows: they say
    which part of which file holds them, and a resumed run reads them there.

    In the file NaN is ``null`` and infinities are the strings ``"Infinity"`` and ``"-Infinity"``,
    so that any JSON reader takes it.

    Args:
        path: the file, or None to keep the rows in memory, and all of them in checkpoints.
        rows: rows measured before: the file is made to hold just these. A file found at ``path``
            that begins otherwise is kept under the next free of the names ``<name>.1.jsonl``,
            ``<name>.2.jsonl``.

    Attributes:
        rows: all rows so far.
        last_step: that of the last row, also where the rows of a resumed run are lost; -1 of none.
        saved_at: time at which the state of a resumed run was saved, if it is known.

    Raises:
        ValueError: if the folder of ``path`` cannot be made or written to.
    """

    def __init__(self, path: Path | None = None, rows: list[Row] | None = None) -> None:
        self.path: Path | None = None
        self.rows: list[Row] = []
        self.last_step = -1
        self.saved_at: float | None = None
        self._saved: Mapping[str, Any] | None = None
        self._in_file = self._end = self._crc = 0  # rows and bytes that the file holds for certain
        self._synced = 0
        self._warned = False
        self._begin(path, rows or [], True)

    def load(self, state: Mapping[str, Any]) -> None:
        """Take what a checkpoint holds of a history; its rows are read by :meth:`open`."""
        self._saved, self.saved_at = state, state.get("saved_at")
        self.rows = list(state["rows"])
        self.last_step = max(state.get("last_step", -1), *(row["step"] for row in self.rows), -1)

    def open(self, path: Path | None, step: int, checkpoint: Any = None) -> list[Row]:
        """Begin to write, after the rows of a resumed run.

        Args:
            path: see the class.
            step: optimizer steps of the run at its start. Rows of the file that were written after
                the checkpoint stay up to this step; later ones will be measured again. -1 keeps
                none of them.
            checkpoint: that the run is resumed from, if there is one; beside it lie the rows of a
                run that had another folder.

        Returns:
            The rows that were written after the checkpoint.

        Raises:
            ValueError: see the class.
        """
        known = self.last_step
        rows, are_all = self._find(step, checkpoint, path)
        self._saved = None
        self._begin(path, rows, are_all)
        return [row for row in rows if row["step"] > known]

    def read_again(self, step: int, checkpoint: Any = None) -> list[Row]:
        """The rows that a loaded state tells of; see :meth:`open`."""
        return self._find(step, checkpoint, None)[0]

    def _find(self, step: int, checkpoint: Any, path: Path | None) -> tuple[list[Row], bool]:
        if self._saved is None:
            return self.rows, True
        return find_rows(self._saved, step, path, checkpoint)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds, of a size that does not grow with the rows in the file."""
        if self._saved is not None:  # it was not opened since
            return dict(self._saved)
        held = self._in_file if self.path is not None and self._is_as_written(self.path) else 0
        found: dict[str, Any] = {"rows": self.rows[held:], "last_step": self.last_step}
        found["saved_at"] = time.time()
        if self.path is not None and held == self._in_file:
            self._sync()
            file = {"path": str(self.path), "rows": held, "bytes": self._end, "crc": self._crc}
            found["file"] = file | {"first": zlib.crc32(lines_of(self.rows[:1]))}
        return found

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
        self.last_step = step
        if self.path is not None:
            self._write(self.path)
        return row

    def _begin(self, path: Path | None, rows: list[Row], are_all: bool) -> None:
        """Make the file hold ``rows``, and no others; keep one that may hold more of the run."""
        self.path = path = None if path is None else Path(local_path(path)).absolute()
        self.rows = list(rows)
        self.last_step = max(self.last_step, *(row["step"] for row in rows), -1)
        if path is None:
            return
        check_folder(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = lines_of(rows)
        if path.exists():
            is_more = path.stat().st_size > len(data)
            if data and _begins_with(path, data) and (are_all or not is_more):
                self._holds(data)
                with suppress(OSError):  # told when the next row is written
                    os.truncate(path, self._end)
                return
            path.rename(_free_name(path))
        if data:
            self._write(path)

    def _write(self, path: Path) -> None:
        """Write the rows that the file lacks."""
        try:
            if self._in_file and not self._is_as_written(path):
                self._in_file = self._end = self._crc = 0  # somebody else has changed it
            data = lines_of(self.rows[self._in_file :])
            # All rows at once are written beside the file, which a kill then leaves whole.
            if self._in_file or path.is_symlink():
                _append(path, self._end, data)
            else:
                _replace(path, data)
        except OSError as error:
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"{path} cannot be written: {reason_of(error)}. Its rows are kept in memory "
                    "and in checkpoints, and are written as soon as that works again.",
                    stacklevel=2,
                )
            return
        self._holds(data)

    def _holds(self, data: bytes) -> None:
        """Note that the file ends with ``data``, and holds all rows."""
        self._in_file, self._end = len(self.rows), self._end + len(data)
        self._crc = zlib.crc32(data, self._crc)

    def _is_as_written(self, path: Path) -> bool:
        try:
            return path.stat().st_size == self._end
        except OSError:
            return False

    def _sync(self) -> None:
        """Have the disk hold what a checkpoint counts on, as it holds the checkpoint."""
        if self.path is None or self._synced == self._end:
            return
        with suppress(OSError):  # a file system that knows no such thing
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())
            self._synced = self._end


def _begins_with(path: Path, data: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(data)) == data
    except OSError:
        return False


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


def _replace(path: Path, data: bytes) -> None:
    scratch = path.with_suffix(".partial")
    try:
        scratch.write_bytes(data)
        os.replace(scratch, path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise


def _free_name(path: Path) -> Path:
    # With a dot: `<name>-1.jsonl` is the file of a second diagnostic of one name.
    number = 1
    while (free := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    return free
