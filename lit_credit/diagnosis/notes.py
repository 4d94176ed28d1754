"""What the folder of a diagnosis holds, so that a call that was stopped goes on."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from lit_credit.runs.files import write_files
from lit_credit.runs.fingerprints import fingerprint
from lit_credit.runs.history import Row, read_history
from lit_credit.runs.run_folder import DIAGNOSIS
from lit_credit.runs.weight_series import SavedWeights

__all__ = ["Notes"]

_ANOTHER = "Choose another folder for the results, or remove this one."
_IN_MEMORY = "the model in memory"


class Notes:
    """Rows of an earlier diagnosis in a folder, and its notes in ``diagnosis.json``.

    The notes are the arguments of the diagnostics, their states, and the checkpoints measured.

    Args:
        folder: the folder, which need not exist.

    Raises:
        ValueError: if the file of notes cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / DIAGNOSIS
        found = self._read() if self._path.exists() else {}
        self._arguments: dict[str, str] = found.get("arguments", {})
        self._states: dict[str, dict[str, Any]] = found.get("states", {})
        self._sources: dict[str, str] = found.get("checkpoints", {})

    def rows(self, stem: str, arguments: str) -> list[Row]:
        """The rows in the file ``<stem>.jsonl``, if they were measured with equal arguments.

        Args:
            stem: name of a history.
            arguments: the arguments of its diagnostic, as text.

        Raises:
            ValueError: if the rows are of other arguments, or not of a diagnosis.
        """
        path = self.folder / f"{stem}.jsonl"
        rows = read_history(path) if path.exists() else []
        if rows and stem not in self._arguments:
            self._refuse(f"{path} was not written by a diagnosis")
        if rows and self._arguments[stem] != arguments:
            self._refuse(
                f"{path} was measured with {self._arguments[stem]}, and now {arguments} is asked"
            )
        self._arguments[stem] = arguments
        return rows

    def state(self, stem: str) -> dict[str, Any]:
        """The state of a diagnostic at the end of the earlier diagnosis, without its rows."""
        return self._states.get(stem, {})

    def check_probe(self, stem: str, checksum: int | None) -> None:
        """Refuse data other than those that the rows of a diagnostic were measured on.

        Args:
            stem: name of its history.
            checksum: of the data at hand; None if there are none.

        Raises:
            ValueError: if the rows are of other data.
        """
        known = self.state(stem).get("probe_checksum")
        if None not in (known, checksum) and known != checksum:
            self._refuse(
                f"{stem}.jsonl was measured on other data. A loader that shuffles gives other rows "
                "each time"
            )

    def check(self, saved: SavedWeights) -> None:
        """Refuse a checkpoint whose step was measured on other weights.

        Raises:
            ValueError: if so.
        """
        if _IN_MEMORY in self._sources.values():
            self._refuse("its rows are of a model in memory, and now checkpoints are given")
        known = self._sources.get(str(saved.step))
        if known is not None and known != (found := _identity(saved)):
            self._refuse(f"its rows of step {saved.step} are of {known}, and now {found} is given")

    def check_order(self, steps: Iterable[int], last: int, stem: str) -> None:
        """Refuse steps before the last row of a history, which is written in order.

        Args:
            steps: the steps that have no row.
            last: step of the last row.
            stem: name of the history.

        Raises:
            ValueError: if one is earlier.
        """
        early = sorted(step for step in steps if step < last)
        if early:
            self._refuse(
                f"{stem}.jsonl has rows up to step {last}, and checkpoints of earlier steps were "
                f"added: {', '.join(map(str, early[:10]))}"
            )

    def write(
        self,
        states: Mapping[str, Mapping[str, Any]],
        measured: SavedWeights | int | None = None,
    ) -> None:
        """Note the states of the diagnostics, and what was measured.

        Args:
            states: the states by stem.
            measured: a checkpoint, or the step of a model in memory; None if nothing was.
        """
        self._states = {stem: _plain(state) for stem, state in states.items()}
        if isinstance(measured, SavedWeights):
            self._sources[str(measured.step)] = _identity(measured)
        elif measured is not None:
            self._sources[str(measured)] = _IN_MEMORY
        found = {
            "arguments": self._arguments,
            "states": self._states,
            "checkpoints": self._sources,
        }
        write_files(self.folder, {DIAGNOSIS: json.dumps(found, indent=1).encode()})

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{self._path} cannot be read: {error}. {_ANOTHER}") from error
        if not isinstance(found, dict):
            raise ValueError(f"{self._path} does not hold the notes of a diagnosis. {_ANOTHER}")
        return found

    def _refuse(self, reason: str) -> NoReturn:
        raise ValueError(f"{self.folder} holds another diagnosis: {reason}. {_ANOTHER}")


def _identity(saved: SavedWeights) -> str:
    """Weights by name, folder, size and contents of their file, so that a folder may be moved."""
    path = saved.path
    if path is None:
        return f"a state_dict, fingerprint {fingerprint(saved.held or {})}"
    size = f", {path.stat().st_size} bytes" if path.is_file() else ""
    key = f", key {saved.key!r}" if saved.key else ""
    return f"{path.parent.name}/{path.name}{size}{key}, fingerprint {fingerprint(path)}"


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state without the rows, which the history's own file holds."""
    of_rows = ("rows", "last_step", "file", "saved_at")
    return {name: value for name, value in state.items() if name not in of_rows}
