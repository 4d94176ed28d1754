"""Loggers for what is measured in ``validate`` and ``test``, apart from the curves of training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lit_credit.protocols import LoggerProtocol, method
from lit_credit.trainer.trainer import is_in_folder_of
from lit_credit.utils.both_packages import is_a

__all__ = ["close_stage_loggers", "stage_loggers"]

_LOGGERS: "WeakKeyDictionary[Trainer, list[Any]]" = WeakKeyDictionary()


@contextmanager
def stage_loggers(trainer: Trainer, stage: str) -> Iterator[None]:
    """Give the Trainer loggers that do not write into the curves of training.

    TensorBoard gets event files in the folder ``<log_dir>/validate`` or ``<log_dir>/test``, with
    the tags of training. Other loggers get tags that begin with ``validate/`` or ``test/``.

    Args:
        trainer: the Trainer.
        stage: "validate" or "test".
    """
    before = trainer.loggers
    if trainer not in _LOGGERS:
        _LOGGERS[trainer] = [_of_stage(logger, stage) for logger in before]
    trainer.loggers = _LOGGERS[trainer]
    try:
        yield
    finally:
        trainer.loggers = before


def close_stage_loggers(trainer: Trainer) -> None:
    """Write what the loggers of the stage have buffered, and forget them."""
    for logger in _LOGGERS.pop(trainer, []):
        if is_a(logger, TensorBoardLogger) and logger not in trainer.loggers:
            logger.experiment.close()


def _of_stage(logger: Any, stage: str) -> Any:
    if not is_a(logger, TensorBoardLogger):
        return _Prefixed(logger, f"{stage}/")
    if is_in_folder_of(logger, stage):
        return logger
    return TensorBoardLogger(f"{logger.log_dir}/{stage}", name="", version="")


class _Prefixed:
    """Hands on to a logger, under tags with a prefix."""

    def __init__(self, logger: Any, prefix: str) -> None:
        self._logger = logger
        self._prefix = prefix
        log_image = method(logger, LoggerProtocol.log_image)
        if log_image is not None:
            self.log_image = lambda tag, images, step: log_image(
                f"{prefix}{tag}", images, step=step
            )

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self._logger.log_metrics({f"{self._prefix}{k}": v for k, v in metrics.items()}, step=step)
