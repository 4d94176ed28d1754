"""Continuing the TensorBoard curves of a resumed run, so that each point appears once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lit_credit.utils.both_packages import is_a
from lit_credit.utils.paths import is_remote, local_path
from lit_credit.utils.private_names import event_file

__all__ = ["CHARTS", "HYPERPARAMETERS", "already_written", "continue_curves", "flush_curves"]

CHARTS = "custom_scalars__config__"
"""Tag of the layout of custom scalars."""
HYPERPARAMETERS = "_hparams_/session_start_info"
"""Tag of a run's hyperparameters. Both tags are written once per run, at any step."""

_WRITTEN: "WeakKeyDictionary[Any, dict[str, Any]]" = WeakKeyDictionary()
"""Writer of a resumed run to the values that its folder holds under these tags."""


def continue_curves(
    trainer: Trainer, saved_at: float | None = None, step: int | None = None
) -> None:
    """Have TensorBoard forget the points that a resumed run will write again.

    The writer tells readers that the run has started anew at ``step``, so that they drop all points
    from that step on. Points among them that are older than the checkpoint will not be logged
    again, so they are copied with their times. Nothing is removed from the disk. A run that does
    not resume, or that writes to a new folder or a URL, is not changed. Only the first call of a
    fit has an effect.

    Args:
        trainer: the Trainer that is about to train.
        saved_at: time at which the checkpoint was saved; None takes the time of its file.
        step: the first step that the run will log; None asks the Trainer.
    """
    if not trainer.is_global_zero or (saved_at := saved_at or _time_of(trainer.ckpt_path)) is None:
        return
    step = _next_step(trainer) if step is None else step
    for logger in trainer.loggers:
        if not is_a(logger, TensorBoardLogger) or is_remote(logger.log_dir):
            continue
        writer = logger.experiment
        if writer in _WRITTEN:
            continue
        own = Path(event_file(writer)).name
        files = Path(local_path(logger.log_dir)).glob("events.out.tfevents.*")
        earlier = sorted(path for path in files if path.name != own)
        _WRITTEN[writer], before, after = _read(earlier, step, saved_at)
        if after:
            _start_at(writer.file_writer, step)
            for event in before:
                writer.file_writer.add_event(event, walltime=event.wall_time)
            writer.flush()


def already_written(logger: TensorBoardLogger, tag: str) -> Any:
    """The value that a resumed run's folder holds under a tag written once per run, or None."""
    return _WRITTEN.get(logger.experiment, {}).get(tag)


def flush_curves(trainer: Trainer) -> None:
    """Write all points to disk before a checkpoint: a resumed run does not log them again."""
    for logger in trainer.loggers if trainer.is_global_zero else ():
        if is_a(logger, TensorBoardLogger):
            logger.experiment.flush()


def _time_of(checkpoint: Any) -> float | None:
    if not checkpoint or is_remote(checkpoint):
        return None
    path = Path(local_path(checkpoint, "ckpt_path"))
    return path.stat().st_mtime if path.is_file() else None


def _next_step(trainer: Trainer) -> int:
    """The next step to log. Loggers count batches; ``global_step`` counts optimizer steps."""
    if trainer.lightning_module.automatic_optimization:
        return trainer.global_step
    return min(trainer.global_step, trainer.fit_loop.total_batch_idx + 1)


def _read(
    files: list[Path], step: int, saved_at: float
) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """Values written once per run, and events from ``step`` on, before and after the checkpoint."""
    once: dict[str, Any] = {}
    later: list[Any] = []
    for event in _events(files):
        if event.HasField("session_log"):  # written by an earlier resume
            later = [known for known in later if known.step < event.step]
        once |= {v.tag: v for v in event.summary.value if v.tag in (CHARTS, HYPERPARAMETERS)}
        if event.HasField("summary") and event.step >= step:
            later.append(event)
    before = [event for event in later if event.wall_time <= saved_at]
    return once, before, [event for event in later if event.wall_time > saved_at]


def _events(files: list[Path]) -> Iterator[Any]:
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    for path in files:
        yield from LegacyEventFileLoader(str(path)).Load()


def _start_at(file_writer: Any, step: int) -> None:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    for _ in range(2):  # TensorBoard takes the first for the start of the whole run
        log = SessionLog(status=SessionLog.START)
        file_writer.add_event(Event(step=step, session_log=log))
