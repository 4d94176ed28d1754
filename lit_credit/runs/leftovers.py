"""Finding what runs have left behind and do not need; nothing is deleted here.

Histories, configurations, logs, figures and the last checkpoint of a run are never found.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from lit_credit.runs.lock import is_abandoned, locks_above
from lit_credit.runs.run_folder import Run, folder_of_runs, read_run, runs_below

__all__ = ["Leftovers", "find_leftovers"]

_WRITTEN = (".ckpt", ".csv", ".json", ".jsonl", ".md", ".png", ".yaml")
"""Endings of the files that lit_credit writes as ``NAME.partial`` first."""
_SERIES = re.compile(r"step=\d{8,}\.ckpt|last-v\d+\.ckpt")
"""Checkpoints of ``SpacedCheckpoints``, and Lightning's further versions of the last one."""
_EVERY = re.compile(r"epoch=\d+-step=\d+(-v\d+)?\.ckpt")
"""Checkpoints that Lightning's ``ModelCheckpoint`` names by default."""


@dataclass
class Leftovers:
    """What may be deleted.

    Attributes:
        temporary: files that were being written when a run was killed, each with its run's folder.
        locks: lock files of processes of this host that have ended.
        checkpoints: checkpoints of finished runs that resuming does not need, each with its run's
            folder.
        left_alone: folder to the reason why nothing of it is named.
    """

    temporary: dict[Path, Path] = field(default_factory=dict)
    locks: list[Path] = field(default_factory=list)
    checkpoints: dict[Path, Path] = field(default_factory=dict)
    left_alone: dict[Path, str] = field(default_factory=dict)


def find_leftovers(paths: Sequence[str | Path]) -> Leftovers:
    """Find what may be deleted among folders of runs, and anywhere below them.

    Links are not followed, so that nothing outside the folders is found. Files of a run that is
    under way are not found.

    Args:
        paths: run folders, or folders that contain run folders.

    Raises:
        ValueError: if a path is not a folder, or a folder cannot be read.
    """
    found, known = Leftovers(), set[Path]()
    for path in map(folder_of_runs, paths):
        beside = locks_above(path)[:3]
        for lock in sorted({*path.rglob("*.lock"), *beside}):
            if is_abandoned(lock) and lock.resolve() not in known:
                known.add(lock.resolve())
                found.locks.append(lock)
        for folder in runs_below(path, links=False):
            if folder.resolve() not in known:
                known.add(folder.resolve())
                _add_run(found, folder)
    return found


def _add_run(found: Leftovers, folder: Path) -> None:
    held = [lock for lock in locks_above(folder) if not is_abandoned(lock)]
    if held:
        found.left_alone[folder] = f"in use, see {held[0]}"
        return
    partial = filter(_is_ours, _files(folder, "*.partial"))
    found.temporary |= dict.fromkeys(partial, folder)
    last = folder / "checkpoints" / "last.ckpt"
    if not is_zipfile(last):  # missing, or cut off
        return
    try:
        run = read_run(folder)
    except ValueError as error:
        found.left_alone[folder] = str(error)
        return
    if _is_finished(run):
        saved = last.stat().st_mtime_ns
        files = [file for file in _files(folder, "*.ckpt") if file.stat().st_mtime_ns <= saved]
        found.checkpoints |= {file: folder for file in files if _is_intermediate(file, run)}


def _files(folder: Path, pattern: str) -> Iterator[Path]:
    found = (path for path in sorted(folder.rglob(pattern)) if path.is_file())
    return (path for path in found if not path.is_symlink())


def _is_ours(file: Path) -> bool:
    """Whether a file in a run's folder is the first form of one that lit_credit writes."""
    is_named = file.with_suffix("").suffix in _WRITTEN
    return is_named or file.with_suffix(".jsonl").is_file() or file.name == "result.partial"


def _is_finished(run: Run) -> bool:
    """Whether the rows of a run prove that it has ended by itself."""
    epochs = run.max_epochs or -1
    if 0 < epochs <= run.last_epoch:
        return True
    known = max(epochs, run.max_steps) > 0 and not run.may_stop and bool(run.class_path)
    return known and not run.unfinished


def _is_intermediate(file: Path, run: Run) -> bool:
    place = file.parent.relative_to(run.folder).parts
    if place == ("checkpoints",):
        is_every = _EVERY.fullmatch(file.name) and not _chooses(run.config)
        return bool(_SERIES.fullmatch(file.name) or is_every)
    older = len(place) == 2 and place[0] == "checkpoints" and re.fullmatch(r"older\.\d+", place[1])
    return bool(older and _SERIES.fullmatch(file.name))


def _chooses(config: Mapping[str, Any]) -> bool:
    """Whether a callback keeps the best checkpoints, which a person may want."""
    callbacks = (config.get("trainer") or {}).get("callbacks")
    listed = callbacks if isinstance(callbacks, list) else [callbacks]
    arguments = [one.get("init_args") or {} for one in listed if isinstance(one, dict)]
    return any(given.get("monitor") and "save_top_k" in given for given in arguments)
