"""Metrics that callbacks and schedulers watch, checked before training."""

import re
from collections.abc import Iterator
from inspect import getsource
from typing import NamedTuple, Protocol

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn
from torchmetrics import MetricCollection

from lit_credit.protocols import DataModuleProtocol, asked
from lit_credit.rules.evaluation.metrics import compared
from lit_credit.trainer.trainer import callbacks_of, evaluation_loaders, is_fast_dev_run
from lit_credit.trainer.watched import is_measured
from lit_credit.utils.both_packages import is_a, with_twins
from lit_credit.utils.short_text import choice

__all__ = ["check_monitor", "check_monitors", "warn_of_selection"]

_KNOWN = (
    "lit_credit",
    "lightning",
    "pytorch_lightning",
    "torch",
    "torchmetrics",
    "builtins",
    "abc",
)
_LOGS = re.compile(r"\blog(_dict)?\(|_metrics\b")


class Evaluated(Protocol):
    """What the checks read from a rule: its task, and the metrics of its first loader."""

    @property
    def task(self) -> object:
        """Says what a batch means."""

    val_metrics: MetricCollection


def check_monitors(trainer: Trainer, rule: Evaluated) -> None:
    """Refuse checkpoints, early stopping and schedulers that watch a metric never logged.

    Lightning reports this only after an epoch.

    Raises:
        MisconfigurationException: naming the callback, the metric, and the logged metrics.
    """
    for watcher in _watchers(trainer):
        own = ("epoch", "step") if is_a(watcher.callback, ModelCheckpoint) else ()
        if watcher.monitor not in own and getattr(watcher.callback, "strict", True):
            check_monitor(watcher.name, watcher.monitor, trainer, rule)


def warn_of_selection(trainer: Trainer) -> None:
    """Warn, in one line, of watchers of validation metrics if the validation data are test data.

    Args:
        trainer: the Trainer of the coming fit.
    """
    data = getattr(trainer, "datamodule", None)
    if not asked(data, DataModuleProtocol.validates_on_test_data, False):
        return
    seen = [
        f"{watcher.name} watches {watcher.monitor!r}"
        for watcher in _watchers(trainer)
        if watcher.monitor.startswith(("val/", compared("val/")))
        and not is_measured(trainer, watcher.monitor)
    ]
    if seen:
        rank_zero_warn(
            f"{', '.join(seen)}, but the validation data of {type(data).__name__} are its test "
            "data. What is selected by test data looks better on them than it is. Validate on "
            "other data, such as a part of the training data (`val_split: 0.1`)."
        )


class _Watcher(NamedTuple):
    name: str
    monitor: str
    callback: object = None


def _watchers(trainer: Trainer) -> Iterator[_Watcher]:
    """The callbacks and schedulers that watch a metric."""
    kinds = with_twins(ModelCheckpoint, EarlyStopping)
    for callback in callbacks_of(trainer):
        monitor = getattr(callback, "monitor", None)
        if isinstance(callback, kinds) and monitor is not None:
            yield _Watcher(type(callback).__name__, monitor, callback)
    for config in trainer.lr_scheduler_configs:
        monitor = getattr(config.scheduler, "monitor", None)
        if monitor is not None:
            yield _Watcher("`lr_scheduler`", monitor)


def check_monitor(who: str, monitor: str, trainer: Trainer, rule: Evaluated) -> None:
    """Refuse the name of a metric that is never logged.

    A class from outside lit_credit and Lightning may log any name if its source logs; with such a
    class, no name is refused. Before the loaders are known, the name of any loader is accepted.

    Args:
        who: what watches the metric, for the error.
        monitor: the name of the metric.
        trainer: the Trainer of the coming fit.
        rule: the rule to be trained.

    Raises:
        MisconfigurationException: naming the metric, and the logged metrics.
    """
    others = [rule, rule.task, *callbacks_of(trainer)]
    if is_fast_dev_run(trainer) or is_measured(trainer, monitor):
        return  # a diagnostic's tags are known after its measurement before the first step
    if any(_may_log(type(other)) for other in others):
        return
    validated = list(_validated(rule)) if trainer.limit_val_batches != 0 else []
    endings = evaluation_loaders(trainer)
    if endings is None and monitor.startswith(tuple(f"{name}/" for name in validated)):
        return
    logged = ["train/loss", *(f"{name}{end}" for end in endings or [""] for name in validated)]
    if monitor not in logged:
        raise MisconfigurationException(
            f"{who} watches {monitor!r}, which is not logged. Set its `monitor` to one of: "
            f"{choice(logged, monitor)}."
        )


def _validated(rule: Evaluated) -> Iterator[str]:
    """The names that the first loader logs."""
    yield "val/loss"
    names = list(map(str, rule.val_metrics.keys(keep_base=False)))
    yield from names
    yield from map(compared, names)


def _may_log(kind: type) -> bool:
    if kind is LearningRateMonitor:
        return True
    for parent in kind.__mro__:
        if parent.__module__.partition(".")[0] in _KNOWN:
            continue
        try:
            if _LOGS.search(getsource(parent)):
                return True
        except (OSError, TypeError):  # for example a class typed into a notebook
            return True
    return False
