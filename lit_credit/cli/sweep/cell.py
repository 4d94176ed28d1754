"""One run of a sweep: its configuration and its folder."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_credit.cli.sweep.grid import Point
from lit_credit.cli.sweep.own_code import write_code
from lit_credit.runs.walk import files_below
from lit_credit.runs.yaml_files import parse_yaml

__all__ = ["Cell"]

_ABSENT = "nothing"


@dataclass(frozen=True)
class Cell:
    """A point of the grid with a seed and a folder."""

    name: str
    point: Point
    seed: int
    folder: Path
    words: list[str]
    """The words after ``lit-credit fit``."""
    asked: str
    """The full configuration as YAML, without the folder."""
    cwd: Path
    varied: tuple[str, ...] = ()
    """Dotted names of the options whose values differ among the points of the sweep."""
    read: str | None = None
    """What was read from the words without the seed, as text; None lets the run read them."""
    code: Mapping[str, str] = field(default_factory=dict)
    """One's own source files behind the run's classes, and their digests."""

    @property
    def log(self) -> Path:
        """The file with all output of the run."""
        return self.folder / "log.txt"

    @property
    def _result(self) -> Path:
        return self.folder / "result.json"

    def result(self) -> dict[str, Any] | None:
        """The result of the finished run, or None.

        Raises:
            ValueError: if the file is damaged.
        """
        try:
            found = json.loads(self._result.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("values"), dict):
            raise ValueError(
                f"{self._result}: not the result of a run. Remove the file, and the run goes on."
            )
        return found

    def refuse_another(self) -> None:
        """Check that a result or checkpoint in the folder belongs to this configuration.

        Raises:
            ValueError: if it belongs to another configuration.
        """
        if self.result() is None and self.checkpoint() is None:
            return
        remedy = "Give another --out, or remove that folder."
        asked = self.folder / "asked.yaml"
        try:
            text = asked.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise ValueError(
                f"cell {self.name}: {str(self.folder)!r} holds a run of no sweep. {remedy}"
            ) from error
        except UnicodeDecodeError as error:
            raise ValueError(f"cell {self.name}: {asked}: not UTF-8 text. {remedy}") from error
        if text == self.asked:
            return
        from lit_credit.cli.older_configs import of_today, with_new_defaults  # they import torch

        try:
            saved = of_today(parse_yaml(text))
        except ValueError as error:
            raise ValueError(f"cell {self.name}: {asked}: {error} {remedy}") from error
        wanted = of_today(parse_yaml(self.asked))
        saved = with_new_defaults(saved, wanted)
        if saved == wanted:
            return
        key, was, now = _first_difference(saved, wanted)
        raise ValueError(
            f"cell {self.name}: {str(self.folder)!r} holds a run with {key}: {was}, and {now} is "
            f"asked for. {remedy}"
        )

    def prepare(self) -> None:
        """Create the folder; files of an unfinished run without a checkpoint are removed."""
        if (self.folder / "asked.yaml").exists() and self.checkpoint() is None:
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "asked.yaml").write_text(self.asked, encoding="utf-8")
        write_code(self.folder, self.code)

    def finish(self, result: dict[str, Any]) -> None:
        """Write the result completely or not at all."""
        scratch = self.folder / "result.partial"
        scratch.write_text(json.dumps(result), encoding="utf-8")
        scratch.replace(self._result)

    def checkpoint(self) -> Path | None:
        """The newest checkpoint, to resume from; a damaged one only if there is no other.

        Links to folders are followed: checkpoints may lie on another disk.
        """
        from lit_credit.runs.run_checkpoints import look_into, newest  # these import torch

        found = [look_into(path) for path in files_below(self.folder, ".ckpt")]
        damaged = max((s for s in found if s.step < 0), key=lambda s: s.saved_at, default=None)
        taken = newest(found) or damaged
        return taken.path if taken else None


def _first_difference(was: Any, now: Any, at: str = "") -> tuple[str, Any, Any]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in {**was, **now}:
            pair = was.get(key, _ABSENT), now.get(key, _ABSENT)
            if pair[0] != pair[1]:
                return _first_difference(*pair, f"{at}.{key}" if at else str(key))
    return at, was, now
