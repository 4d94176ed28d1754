"""What Lightning's Trainer knows but does not declare."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

__all__ = [
    "callbacks_of",
    "count_updates",
    "epochs_completed",
    "is_at_epoch_start",
    "is_fast_dev_run",
    "run_folder",
]


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """All callbacks of the Trainer, in their order."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


def count_updates(trainer: Trainer, updates: int) -> None:
    """Have loggers count the updates of the training step that ends.

    ``global_step``, by which Lightning ends a run and saves checkpoints, counts them anyway; what
    is logged has an axis of its own, which knows batches only.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped += updates - 1  # it adds one itself


def epochs_completed(trainer: Trainer) -> int:
    """Epochs whose every batch has been trained on, at the end of a batch or in a validation."""
    return trainer.current_epoch + int(trainer.is_last_batch)


def is_fast_dev_run(trainer: Trainer) -> bool:
    """Whether this is a trial run that leaves nothing behind."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def is_at_epoch_start(trainer: Trainer) -> bool:
    """Whether a fit that starts or resumes does so between two epochs.

    A run resumed from a checkpoint of an epoch's last batch comes here without having passed the
    end of that epoch: Lightning counts it as over and calls none of its hooks.
    """
    taken = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    return taken % trainer.num_training_batches == 0


def run_folder(trainer: Trainer) -> Path | None:
    """The folder that this process writes to; None on other ranks and in a trial run.

    Must be called on every rank: Lightning broadcasts the folder's name.
    """
    log_dir: Any = trainer.log_dir
    if not trainer.is_global_zero or is_fast_dev_run(trainer) or log_dir is None:
        return None
    return Path(log_dir)
