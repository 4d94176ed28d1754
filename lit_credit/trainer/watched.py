"""Showing the numbers of diagnostics to checkpoints, early stopping and schedulers.

``trainer.callback_metrics`` holds a measurement under its tags until the next measurement.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lit_credit.protocols import DiagnosticProtocol, RuleProtocol, asked
from lit_credit.trainer.trainer import callbacks_of
from lit_credit.utils.both_packages import is_a
from lit_credit.utils.private_names import (
    checks_after_epochs,
    saves_after_epochs,
    saves_every_n_steps,
)
from lit_credit.utils.short_text import choice

__all__ = ["check_tags", "check_times", "is_measured", "watch"]


def watch(trainer: Trainer, tagged: Mapping[str, float]) -> None:
    """Show a measurement to callbacks and schedulers, but not to loggers and progress bars.

    Must be called on every process, because reading ``trainer.callback_metrics`` reduces metrics
    over the processes at the end of an epoch.
    """
    if tagged:
        trainer.callback_metrics.update({tag: torch.tensor(x) for tag, x in tagged.items()})


def is_measured(trainer: Trainer, name: str) -> bool:
    """Whether a diagnostic in this Trainer measures a metric, judged by the prefix of its tag."""
    prefixes = (
        asked(callback, DiagnosticProtocol.tag_prefix, None) for callback in callbacks_of(trainer)
    )
    return any(name.startswith(f"{prefix}/") for prefix in prefixes if prefix is not None)


def check_times(trainer: Trainer, diagnostic: Any) -> None:
    """Refuse watchers that would look before a diagnostic has measured, or twice at one number.

    Watchers would take the same number for a lack of improvement, and a checkpoint would have the
    label of a number that its weights do not have.

    Args:
        trainer: a Trainer whose fit has started.
        diagnostic: an object with ``tag_prefix``, ``every_n_epochs`` and ``every_n_steps``.

    Raises:
        MisconfigurationException: naming the watcher, and the argument to change.
    """
    kind = type(diagnostic).__name__
    for watcher in _watchers(trainer):
        if not watcher.monitor.startswith(f"{diagnostic.tag_prefix}/"):
            continue
        reason = _stands_before(watcher, diagnostic, trainer) or _looks_too_early(
            watcher, kind, diagnostic.every_n_epochs, diagnostic.every_n_steps
        )
        if reason:
            raise MisconfigurationException(f"{watcher.name} watches {watcher.monitor!r}, {reason}")


def check_tags(trainer: Trainer, diagnostic: Any) -> None:
    """Refuse watchers of tags that a diagnostic does not measure, after its first measurement.

    Raises:
        MisconfigurationException: naming the watcher, and the tags that there are.
    """
    prefix = f"{diagnostic.tag_prefix}/"
    watchers = [w for w in _watchers(trainer) if w.strict and w.monitor.startswith(prefix)]
    if not watchers:
        return
    tags = [tag for tag in trainer.callback_metrics if tag.startswith(prefix)]
    for watcher in watchers:
        if watcher.monitor not in tags:
            raise MisconfigurationException(
                f"{watcher.name} watches {watcher.monitor!r}, which {type(diagnostic).__name__} "
                f"does not measure. Set its `monitor` to one of: {choice(tags, watcher.monitor)}."
            )


class _Watcher(NamedTuple):
    name: str
    """Class name, for errors."""
    monitor: str
    looks: str
    """When it looks: after an "epoch", a "validation" or a "step"; or "sometimes", by the clock."""
    every: int = 1
    strict: bool = True
    remedy: str = ""
    """The argument that makes it look after epochs."""
    callback: Any = None


def _watchers(trainer: Trainer) -> Iterator[_Watcher]:
    callback: Any
    for callback in callbacks_of(trainer):
        name, monitor = type(callback).__name__, getattr(callback, "monitor", None)
        if monitor is None:
            continue
        if is_a(callback, ModelCheckpoint):
            looks, every = _times_of_checkpoint(callback, trainer)
            remedy = "save_on_train_epoch_end=True"
            yield _Watcher(name, monitor, looks, every, True, remedy, callback)
        elif is_a(callback, EarlyStopping):
            looks = "epoch" if _stops_after_epochs(callback, trainer) else "validation"
            remedy = "check_on_train_epoch_end=True"
            yield _Watcher(name, monitor, looks, 1, callback.strict, remedy, callback)
    for config in trainer.lr_scheduler_configs:
        # In manual optimization, the scheduler says what it watches, and the rule says when.
        monitor = config.monitor or getattr(config.scheduler, "monitor", None)
        looks = asked(trainer.lightning_module, RuleProtocol.lr_interval, config.interval)
        if monitor is not None:
            kind = type(config.scheduler).__name__
            yield _Watcher(kind, monitor, looks, config.frequency, config.strict)


def _times_of_checkpoint(callback: Any, trainer: Trainer) -> tuple[str, int]:
    if (steps := saves_every_n_steps(callback)) > 0:
        return "step", steps
    if callback.every_n_epochs > 0:
        at_end = saves_after_epochs(callback, trainer)
        return "epoch" if at_end else "validation", callback.every_n_epochs
    return "sometimes", 1


def _stops_after_epochs(callback: Any, trainer: Trainer) -> bool:
    given = checks_after_epochs(callback)
    if given is None:  # `setup` has not run yet; it decides by this
        return trainer.val_check_interval == 1.0 and trainer.check_val_every_n_epoch == 1
    return given


def _stands_before(watcher: _Watcher, diagnostic: Any, trainer: Trainer) -> str:
    """Why a watcher is called before the diagnostic, or "".

    The Trainer calls watchers of its own package last, and those of the other package in order.
    """
    callbacks, callback = callbacks_of(trainer), watcher.callback
    own = isinstance(callback, ModelCheckpoint | EarlyStopping) == isinstance(trainer, Trainer)
    if callback is None or own or callbacks.index(callback) > callbacks.index(diagnostic):
        return ""
    return (
        f"but is of another package than the Trainer, and called before "
        f"{type(diagnostic).__name__}. Import it from the package of the Trainer, or put it last."
    )


def _looks_too_early(
    watcher: _Watcher, kind: str, every_n_epochs: int | None, every_n_steps: int | None
) -> str:
    looks, every = watcher.looks, watcher.every
    if looks == "step" and (every_n_steps is None or every % every_n_steps):
        return (
            f"and looks after every {_times(every, 'step')}, where {kind} has not always measured. "
            f"Give {kind} `every_n_steps={every}`."
        )
    if every_n_epochs is None:
        return ""  # the last measurement is at most `every_n_steps` old
    if looks == "validation":
        return (
            f"and looks at the end of validation, before {kind} measures the epoch. Give "
            f"{watcher.name} `{watcher.remedy}`."
        )
    if looks == "epoch" and every % every_n_epochs:
        return (
            f"and looks after every {_times(every, 'epoch')}, but {kind} measures after every "
            f"{every_n_epochs}. Give {kind} `every_n_epochs={every}`."
        )
    return ""


def _times(every: int, what: str) -> str:
    return what if every == 1 else f"{every} {what}s"
