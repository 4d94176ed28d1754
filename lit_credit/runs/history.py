"""Writing rows of measurements to a file that a resumed run continues."""

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
    """An append-only JSON lines file with one row per measurement, flushed row by row.

    A row that cannot be written, for example because the disk is full, stays in memory and in
    checkpoints, and is written before the next row; there is one warning. Checkpoints hold only
    such rows. For all others they name the file and the part of it that holds them, and a resumed
    run reads them there.

    In the file NaN is ``null`` and infinities are the strings ``"Infinity"`` and ``"-Infinity"``,
    so that any JSON reader can read it.

    Args:
        path: the file, or None to keep all rows in memory and in checkpoints.
        rows: rows measured before; the file is made to hold exactly these. If a file at ``path``
            begins with other rows, it is kept under the next free of the names ``<name>.1.jsonl``,
            ``<name>.2.jsonl``.

    Attributes:
        rows: all rows so far.
        last_step: step of the last row, even if the rows of a resumed run are lost; -1 if none.
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
        """Take a history's state from a checkpoint; :meth:`open` reads the rows in its file."""
        self._saved, self.saved_at = state, state.get("saved_at")
        self.rows = list(state["rows"])
        self.last_step = max(state.get("last_step", -1), *(row["step"] for row in self.rows), -1)

    def open(self, path: Path | None, step: int, checkpoint: Any = None) -> list[Row]:
        """Begin to write, after the rows of a resumed run.

        Args:
            path: see the class.
            step: number of optimizer steps at the start of the run. Rows of the file that were
                written after the checkpoint are kept up to this step; later ones will be measured
                again. -1 keeps none of them.
            checkpoint: the checkpoint that the run is resumed from, if any. The rows of a run that
                had another folder are searched beside it.

        Returns:
            The kept rows that were written after the checkpoint.

        Raises:
            ValueError: see the class.
        """
        known = self.last_step
        rows, are_all = self._find(step, checkpoint, path)
        self._saved = None
        self._begin(path, rows, are_all)
        return [row for row in rows if row["step"] > known]

    def read_again(self, step: int, checkpoint: Any = None) -> list[Row]:
        """Read the rows that a loaded state refers to; see :meth:`open`."""
        return self._find(step, checkpoint, None)[0]

    def _find(self, step: int, checkpoint: Any, path: Path | None) -> tuple[list[Row], bool]:
        if self._saved is None:
            return self.rows, True
        return find_rows(self._saved, step, path, checkpoint)

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint; its size does not grow with the rows in the file."""
        if self._saved is not None:  # the history was not opened since it was loaded
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
            proved: statement to relative error; left out of the row if there is none.
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
        """Make the file hold exactly ``rows``; rename an older file that may hold other rows."""
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
                with suppress(OSError):  # the next row that is written will warn
                    os.truncate(path, self._end)
                return
            path.rename(_free_name(path))
        if data:
            self._write(path)

    def _write(self, path: Path) -> None:
        """Write the rows that the file lacks."""
        try:
            if self._in_file and not self._is_as_written(path):
                self._in_file = self._end = self._crc = 0  # another process has changed it
            data = lines_of(self.rows[self._in_file :])
            # All rows together are written beside the file, so that a kill leaves the file whole.
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
        """Sync the file to disk, since a checkpoint on disk refers to its rows."""
        if self.path is None or self._synced == self._end:
            return
        with suppress(OSError):  # a file system without fsync
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
    """Write after the first ``end`` bytes; any bytes there belong to an unfinished line."""
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
    # With a dot: `<name>-1.jsonl` is the file of a second diagnostic of the same name.
    number = 1
    while (free := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    return free
