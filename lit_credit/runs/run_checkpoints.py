"""Finding the checkpoints of a run, and the one that `--ckpt_path last` means."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Trainer

from lit_credit.runs.checkpoint_io import open_checkpoint, read_checkpoint
from lit_credit.runs.history import read_history
from lit_credit.runs.walk import files_below
from lit_credit.utils.paths import is_remote, local_path

__all__ = [
    "Saved",
    "checkpoint_files",
    "checkpoint_folders",
    "find_last",
    "look_into",
    "newest",
    "run_folders",
]

_MEMBERS = "members"  # checkpoints of an ensemble's members, which are other nets


class Saved(NamedTuple):
    """What a checkpoint tells about its run; ``step`` is -1 if the file cannot be read."""

    path: Path
    step: int = -1
    saved_at: int = 0
    resumes: bool = False
    rule: str | None = None
    seed: int | None = None


def look_into(path: Path) -> Saved:
    """Read step, rule and seed of a checkpoint; its tensors are not loaded if its format allows."""
    when = path.stat().st_mtime_ns
    try:
        found = open_checkpoint(path)
        step = int(found.get("global_step", 0))
    except Exception:  # torch raises various errors if a file is cut off
        return Saved(path, saved_at=when)
    entry, configured = found.get("lit_credit"), found.get("configuration")
    return Saved(
        path,
        step,
        when,
        "optimizer_states" in found and "loops" in found,
        entry.get("rule") if isinstance(entry, dict) else None,
        configured.get("seed_everything") if isinstance(configured, dict) else None,
    )


def newest(found: Iterable[Saved]) -> Saved | None:
    """The resumable checkpoint of most steps; of several, the one written last."""
    taken = (saved for saved in found if saved.resumes)
    return max(taken, key=lambda saved: (saved.step, saved.saved_at), default=None)


def run_folders(trainer: Trainer) -> list[Path]:
    """The local folders that belong to this run alone."""
    logs = [folder for x in trainer.loggers if (folder := getattr(x, "log_dir", None))]
    own = logs or [trainer.default_root_dir]
    return [Path(local_path(folder)) for folder in own if not is_remote(folder)]


def checkpoint_folders(trainer: Trainer) -> list[str]:
    """The folders that checkpoint callbacks write to."""
    callbacks: list[Any] = list(trainer.checkpoint_callbacks)
    return [str(c.dirpath) for c in callbacks if getattr(c, "dirpath", None)]


def checkpoint_files(trainer: Trainer) -> list[Path]:
    """All files in a run's folders that may be its checkpoints; links to folders are followed."""
    root = trainer.default_root_dir
    flat: list[str | Path] = [root, *checkpoint_folders(trainer)]
    if not trainer.loggers:
        flat.append(Path(root, "checkpoints"))
    deep = [folder for x in trainer.loggers if (folder := getattr(x, "log_dir", None))]
    for logger in trainer.loggers[:1]:
        version = logger.version
        version = version if isinstance(version, str) else f"version_{version}"
        flat.append(Path(logger.save_dir or root, str(logger.name), version, "checkpoints"))
    places = [
        *(Path(local_path(folder)).glob("*.ckpt") for folder in flat if not is_remote(folder)),
        *(files_below(local_path(folder), ".ckpt") for folder in deep if not is_remote(folder)),
    ]
    files = {path.resolve(): path for place in places for path in place if path.is_file()}
    return [path for path in files.values() if path.parent.name != _MEMBERS]


def find_last(trainer: Trainer, rule: str, seed: Any) -> Path | None:
    """Find the newest checkpoint of the run; None if the run has not begun.

    Args:
        trainer: the Trainer of the run.
        rule: class name of the rule; a checkpoint that names another rule is of another run.
        seed: seed of the run; a checkpoint that names another seed is of another run.

    Raises:
        ValueError: if the newest checkpoint is damaged, or the run has begun and no checkpoint can
            be resumed.
    """
    found = [look_into(path) for path in checkpoint_files(trainer)]
    own = [s for s in found if s.rule in (None, rule) and (s.seed in (None, seed))]
    taken = newest(own)
    damaged = max((s for s in own if s.step < 0), key=lambda s: s.saved_at, default=None)
    if damaged is not None and (taken is None or damaged.saved_at > taken.saved_at):
        try:
            read_checkpoint(damaged.path)
            reason = f"{damaged.path} cannot be read."
        except ValueError as error:
            reason = str(error)
        if taken is None:
            raise ValueError(f"`--ckpt_path last`: {reason}")
        raise ValueError(
            f"`--ckpt_path last`: {reason} The newest that is whole is of step {taken.step}: "
            f"`--ckpt_path {taken.path}`."
        )
    if taken is not None:
        return taken.path
    for folder in run_folders(trainer):
        for trace in _traces(folder, found):
            raise ValueError(
                f"`--ckpt_path last`: {folder} holds {trace}, but no checkpoint that this run can "
                "go on from. Give the file as `--ckpt_path FILE`, or move that folder away to "
                "start over."
            )
    return None


def _traces(folder: Path, found: list[Saved]) -> Iterator[str]:
    """Texts about the traces that a run leaves in its folder."""
    inside = [s for s in found if folder.resolve() in s.path.resolve().parents]
    for saved in inside:
        yield f"{saved.path.name}, of {_kind(saved)}"
    histories = sorted(folder.glob("*.jsonl"))
    steps = [row["step"] for path in histories for row in read_history(path)]
    if steps and max(steps) > 0:
        yield f"a run of {max(steps)} steps or more"
    if not steps and next(folder.glob("config*.yaml"), None):
        yield "the configuration of a run"
    if not folder.exists() and re.fullmatch(r"version_\d+", folder.name):
        others = sorted(folder.parent.glob("version_*/**/*.ckpt"), key=lambda p: p.stat().st_mtime)
        if others:
            yield f"nothing yet (its logger numbers the runs; before it lies {others[-1]})"


def _kind(saved: Saved) -> str:
    if not saved.resumes:
        return "weights without the state of a run"
    return f"rule {saved.rule}, seed {saved.seed}"
