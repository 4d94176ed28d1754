"""Asking Lightning's Trainer for callbacks, loaders, progress and the run's folder."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from lit_credit.utils.both_packages import is_a
from lit_credit.utils.paths import is_remote, local_path
from lit_credit.utils.private_names import (
    add_batches_that_stepped,
    combined_loader,
    is_in_turns,
    last_steps_are_done,
)

__all__ = [
    "callbacks_of",
    "check_trainer",
    "count_updates",
    "epochs_completed",
    "evaluation_loaders",
    "is_at_epoch_start",
    "is_fast_dev_run",
    "is_in_folder_of",
    "is_last_epoch",
    "logger_due",
    "run_folder",
    "stage_folder",
]


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """All callbacks of the Trainer, in their order."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


def check_trainer(trainer: Any, who: str) -> None:
    """Refuse a Trainer under which no process has the whole module.

    Args:
        trainer: the Trainer.
        who: the class that needs the whole module, for the error.

    Raises:
        MisconfigurationException: if its strategy shards parameters over the processes.
    """
    if is_a(trainer.strategy, FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy):
        raise MisconfigurationException(
            f"{who} looks at whole weights, but under {type(trainer.strategy).__name__} each "
            "process has a shard of them, and rank zero alone would wait forever for the others. "
            'Use `Trainer(strategy="ddp")`, or one device.'
        )


def count_updates(trainer: Trainer, updates: int) -> None:
    """Add the updates of the training step that ends to the axis of the loggers.

    ``global_step``, by which Lightning ends a run and saves checkpoints, counts updates anyway. The
    axis of the loggers counts batches only.
    """
    add_batches_that_stepped(trainer, updates - 1)  # Lightning adds one itself


def epochs_completed(trainer: Trainer) -> int:
    """Number of epochs with all batches trained on, at the end of a batch or in a validation."""
    return trainer.current_epoch + int(trainer.is_last_batch)


def evaluation_loaders(trainer: Trainer) -> list[str] | None:
    """Endings for the names of the loaders that are validated, or tested, one after the other.

    The first loader, and loaders whose batches are joined, have an empty ending. The ending of
    another loader is a slash and its key in a mapping, or its position in a list: ``["", "/ood"]``.

    Args:
        trainer: the Trainer, while it fits, validates or tests.

    Returns:
        One ending per loader; None as long as Lightning has not asked for the loaders.
    """
    loops = {TrainerFn.VALIDATING: trainer.validate_loop, TrainerFn.TESTING: trainer.test_loop}
    fn = trainer.state.fn or TrainerFn.FITTING
    combined = combined_loader(loops.get(fn, trainer.fit_loop.epoch_loop.val_loop))
    if combined is None:
        return None
    if not is_in_turns(combined):
        return [""]
    keys = list(_keys(combined.iterables))
    if len(keys) != len(combined.flattened):  # containers that Lightning takes for a loader
        keys = [f"/{index}" for index in range(len(combined.flattened))]
    return ["", *keys[1:]]


def _keys(loaders: Any, above: str = "") -> Iterator[str]:
    """The path to each loader in nested mappings and lists."""
    if isinstance(loaders, Mapping | list | tuple):
        pairs = loaders.items() if isinstance(loaders, Mapping) else enumerate(loaders)
        for key, part in pairs:
            yield from _keys(part, f"{above}/{key}")
    else:
        yield above


def is_fast_dev_run(trainer: Trainer) -> bool:
    """Whether this is a trial run (``fast_dev_run``), which writes no files."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def is_last_epoch(trainer: Trainer) -> bool:
    """Whether a fit ends with the epoch that ends now, as far as is known at this point.

    Callbacks that stop the run at the end of an epoch, such as ``EarlyStopping`` on a training
    metric, are called later.
    """
    loop = trainer.fit_loop
    epochs, steps = loop.max_epochs, trainer.max_steps
    return (
        (steps != -1 and trainer.global_step >= steps)
        or (epochs not in (None, -1) and trainer.current_epoch + 1 >= epochs)
        or (trainer.should_stop and last_steps_are_done(trainer))
    )


def is_at_epoch_start(trainer: Trainer) -> bool:
    """Whether a fit starts or resumes between two epochs.

    This holds for a run resumed from a checkpoint of an epoch's last batch. Lightning counts that
    epoch as over and calls none of the hooks of its end.
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress
    if trainer.num_training_batches == float("inf"):  # a stream without a length
        return progress.current.ready == 0 or progress.is_last_batch
    return progress.current.ready % trainer.num_training_batches == 0


def run_folder(trainer: Trainer) -> Path | None:
    """The folder that this process writes to; None on ranks other than zero and in a trial run.

    If the first logger has a folder per run, as ``trainer.log_dir``, it is that folder. For loggers
    that keep all runs in one place (W&B, MLflow) or write no files, it is the folder in which
    Lightning saves the checkpoints, ``<save_dir>/<name>/<version>``. A URL such as ``s3://`` gives
    None and one warning, because files there cannot be appended to.

    Must be called on every rank: Lightning broadcasts the folder's name.
    """
    log_dir: Any = trainer.log_dir
    if not trainer.is_global_zero or is_fast_dev_run(trainer):
        return None
    logger: Any = trainer.loggers[0] if trainer.loggers else None
    if is_a(logger, TensorBoardLogger, CSVLogger):
        log_dir = logger.log_dir  # a Trainer of the other package does not recognise this logger
    if logger is None or getattr(logger, "log_dir", None) is not None:
        return None if log_dir is None else _local_folder(log_dir)
    version = logger.version
    version = version if isinstance(version, str) else f"version_{version}"
    root = _local_folder(logger.save_dir or trainer.default_root_dir)
    return None if root is None else Path(root, str(logger.name), version)


def stage_folder(trainer: Trainer, stage: str) -> Path | None:
    """The folder for what ``validate`` or ``test`` measures: ``validate`` or ``test`` in the run's.

    If the first logger writes to such a folder by its ``sub_dir``, as on the command line, it is
    that folder. None where :func:`run_folder` is None. Must be called on every rank.

    Args:
        trainer: the Trainer.
        stage: "validate" or "test".
    """
    folder = run_folder(trainer)
    own = is_in_folder_of(trainer.loggers[0], stage) if trainer.loggers else False
    return folder if folder is None or own else folder / stage


def is_in_folder_of(logger: Any, stage: str) -> bool:
    """Whether a logger writes to a folder of its own for ``validate`` or ``test``."""
    return is_a(logger, TensorBoardLogger) and logger.sub_dir == stage


def _local_folder(folder: str) -> Path | None:
    if is_remote(folder):
        rank_zero_warn(
            f"{folder} is no local folder, so histories, figures and tables are not written there. "
            "The rows are kept in memory and in checkpoints."
        )
        return None
    return Path(local_path(folder, "save_dir"))


def logger_due(trainer: Trainer) -> bool:
    """Whether ``self.log`` in a training step, after its updates, reaches a logger.

    A call of ``self.log`` costs 0.1 to 0.5 ms, as much as the training step of a small net.
    """
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return trainer.global_step % max(every, 1) == 0
