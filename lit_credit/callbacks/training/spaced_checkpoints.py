"""Keeping a series of checkpoints over training, at steps that are spaced logarithmically."""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile, ZipFile

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lit_credit.protocols import RuleProtocol, asked, is_rule
from lit_credit.runs.checkpoint_io import write_checkpoint
from lit_credit.runs.saved_steps import SERIES_ENTRY
from lit_credit.trainer.trainer import (
    callbacks_of,
    check_trainer,
    epochs_completed,
    is_fast_dev_run,
    is_last_epoch,
    run_folder,
)
from lit_credit.utils.both_packages import Callback
from lit_credit.utils.paths import is_remote, local_path
from lit_credit.utils.private_names import dumped_checkpoint
from lit_credit.utils.random_state import random_state
from lit_credit.utils.ranges import check_choice, check_range

__all__ = ["SpacedCheckpoints"]

_LAST_POWER = 512
_NAME = re.compile(r"step=(\d{8,})\.ckpt")


class SpacedCheckpoints(Callback):
    """Keeps a series of checkpoints, ``checkpoints/step=00000512.ckpt`` in the run's folder.

    Each file holds the weights after so many optimizer steps: those of step 0 are the weights
    before training. The last step of a fit is always kept, unless it is after ``until``. If a
    training step makes several updates, the first step at or after a scheduled one is kept, under
    its true number.

    The weights are those being trained, which diagnostics see. If an optimizer evaluates other
    weights, a rule's file holds these as ``state_dict``, and the trained ones as
    ``trained_weights``. A file also holds the random states, and
    ``lit_credit_series: {"epochs_completed": n}``. Training is bit-identical with and without the
    callback.

    A resumed run goes on with the series. Files of steps after the one that it resumes from are of
    a killed run: they are removed at its start, and written again. A new run moves the series of
    an older run in the same folder to ``older.1``. Every rank must run the callback.

    Args:
        steps: ``log`` keeps steps 0, 1, 2, 4, ..., 512, then every multiple of ``every``, the
            schedule of Pythia; ``linear`` keeps step 0 and every multiple of ``every``.
        every: optimizer steps between two files; in ``log`` those after step 512.
        until: the last step that may be kept; None sets no limit.
        also: further steps to keep.
        full: also save the optimizer and the rest of the run, so that training can be resumed from
            every file; weights and random states alone otherwise.
        dirpath: local folder of the files; None takes ``checkpoints`` in the run's folder.

    Raises:
        ValueError: if an argument is out of range; in ``setup``, if another SpacedCheckpoints with
            another ``full`` writes to the same folder.
        MisconfigurationException: in ``setup``, if the run's folder is remote and there is no
            ``dirpath``, or the strategy shards weights.

    Reference:
        Biderman et al., "Pythia: A Suite for Analyzing Large Language Models Across Training and
        Scaling", 2023, arXiv:2304.01373, section 2.4: the schedule.
    """

    def __init__(
        self,
        *,
        steps: Literal["log", "linear"] = "log",
        every: int = 1000,
        until: int | None = None,
        also: list[int] | None = None,
        full: bool = False,
        dirpath: str | Path | None = None,
    ) -> None:
        super().__init__()
        check_choice(("log", "linear"), steps=steps)
        _check_whole(every=every, until=until, also=also)
        check_range(1, every=every)
        check_range(0, until=until, also=also)
        if until is not None and also and max(also) > until:
            raise ValueError(
                f"`also` names step {max(also)}, which is after `until`, {until}. Raise `until`, "
                "or leave the step out."
            )
        if dirpath is not None and is_remote(local_path(dirpath, "dirpath")):
            raise ValueError(
                f"`dirpath` is {str(dirpath)!r}, expected a local folder: a resumed run removes "
                "files of the killed run there."
            )
        self.steps = steps
        self.every = every
        self.until = until
        self.also = sorted(set(also or ()))
        self.full = full
        self.dirpath = dirpath
        self._folder: Path | None = None
        self._newest: Path | None = None
        self._seen = self._kept = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder, and refuse what would spoil the series."""
        if stage != "fit":
            return
        check_trainer(trainer, type(self).__name__)
        self._newest = None
        self._folder = self._place(trainer)
        for other in self._siblings(trainer):
            if other.full != self.full:
                raise ValueError(
                    f"`full` differs between two SpacedCheckpoints that write to {self._folder}, "
                    "and one would overwrite files of the other. Give one of them a `dirpath`."
                )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights before the first step, and say what is to come."""
        if self._folder is None:
            return
        step = trainer.global_step
        self._kept = trainer.strategy.broadcast(self._tidy(trainer, step))
        # In a resumed run it is due if the kill came between the run's checkpoint and the file.
        is_due = self._kept < self._latest_due(step)
        if is_due:
            self._keep(trainer, trainer.current_epoch)
        self._announce(trainer, pl_module, is_due)
        self._seen = step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the weights of a step that is due, or the first after it."""
        step = trainer.global_step
        if self._latest_due(step) > self._seen:
            self._keep(trainer, epochs_completed(trainer))
        self._seen = step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the last step."""
        # Not in `on_train_end`, where averaged weights may have replaced the trained ones.
        if is_last_epoch(trainer):
            self._keep_last(trainer, trainer.current_epoch + 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the last step of a run that another callback has stopped."""
        self._keep_last(trainer, trainer.current_epoch)

    # Schedule

    def _latest_due(self, step: int) -> int:
        """The latest scheduled step up to ``step``."""
        step = step if self.until is None else min(step, self.until)
        found = [step // self.every * self.every, *(s for s in self.also if s <= step)]
        if self.steps == "log":
            power = min(1 << step.bit_length() >> 1, _LAST_POWER)
            found[0] = found[0] if found[0] > _LAST_POWER else power
        return max(found)

    def _due_between(self, start: int, end: int) -> Iterator[int]:
        """All scheduled steps above ``start`` and up to ``end``, from the last to the first."""
        while end > start and (due := self._latest_due(end)) > start:
            yield due
            end = due - 1

    # Folder

    def _place(self, trainer: Trainer) -> Path | None:
        """The folder of the series, on every rank; None in a trial run."""
        folder = run_folder(trainer)
        if is_fast_dev_run(trainer):
            return None
        if self.dirpath is not None:
            return Path(local_path(self.dirpath, "dirpath"))
        folder = trainer.strategy.broadcast(folder)
        if folder is None:
            raise MisconfigurationException(
                "The run's folder is remote, and SpacedCheckpoints writes to local folders alone. "
                "Give it a `dirpath`."
            )
        return folder / "checkpoints"

    def _siblings(self, trainer: Trainer) -> list["SpacedCheckpoints"]:
        """The Trainer's callbacks that write to the same folder, this one among them."""
        found = [c for c in callbacks_of(trainer) if isinstance(c, SpacedCheckpoints)]
        return [c for c in found if c._folder is not None and c._folder == self._folder]

    def _tidy(self, trainer: Trainer, step: int) -> int:
        """Clear the folder of other runs' files; return the last step of the series, or -1."""
        folder, source = self._folder, trainer.ckpt_path
        if folder is None or not trainer.is_global_zero:
            return -1
        series = _series_in(folder)
        if self._siblings(trainer)[0] is self:
            is_new = source is None and step == 0
            outdated = {s: path for s, path in series.items() if is_new or s > step}
            outdated = {s: path for s, path in outdated.items() if _is_of_series(path)}
            series = {s: path for s, path in series.items() if s not in outdated}
            if is_new:
                _move_away(folder, outdated)
            for path in () if is_new else outdated.values():
                path.unlink()
        if source is not None and not is_remote(source):
            # A logger may have given the resumed run a new folder.
            series = _series_in(Path(local_path(source, "ckpt_path")).parent) | series
        kept = max((s for s in series if s <= step), default=-1)
        self._newest = series.get(kept)
        return kept

    # Files

    def _keep_last(self, trainer: Trainer, epochs: int) -> None:
        step = trainer.global_step
        if self._kept != step and (self.until is None or step <= self.until):
            self._keep(trainer, epochs)

    def _keep(self, trainer: Trainer, epochs: int) -> None:
        """Write one file; every rank must call this."""
        if self._folder is None:
            return
        step = self._kept = trainer.global_step
        self._newest = self._folder / f"step={step:08d}.ckpt"
        checkpoint = dumped_checkpoint(trainer, weights_only=not self.full)
        checkpoint[SERIES_ENTRY] = {"epochs_completed": epochs}
        checkpoint.setdefault("random_state", random_state())  # rules save it themselves
        write_checkpoint(trainer, checkpoint, self._newest)

    def _announce(self, trainer: Trainer, module: LightningModule, is_new: bool) -> None:
        """Say in one line how many files of what size there will be."""
        newest = self._newest
        if newest is None or not newest.exists():  # on other ranks, or written asynchronously
            return
        size, step = newest.stat().st_size, trainer.global_step
        count = self._count(step, _last_step(trainer, module), _updates(module))
        each = f"{_bytes(size)} each"
        if self.full and step == 0:
            each += ", without the optimizer's state"
        text = f"files of {each}"
        if count is not None:
            count += is_new
            most = "" if _steps_are_known(module) else "up to "
            text = (
                f"{most}{count} file{'s' * (count != 1)} of {each}, {_bytes(count * size)} in all"
            )
        rank_zero_info(f"SpacedCheckpoints: {text}, in {newest.parent}: steps {self._described()}.")

    def _count(self, start: int, end: int | None, updates: int) -> int | None:
        """Number of files after step ``start``; None if the length of the run is unknown."""
        if end is None:
            return None
        due = self._due_between(start, end)
        kept = {min(-(-step // updates) * updates, end) for step in due}
        if end > start and (self.until is None or end <= self.until):
            kept.add(end)
        return len(kept)

    def _described(self) -> str:
        regular = f"0 and every {self.every}"
        if self.steps == "log":
            regular = f"0, 1, 2, 4, ..., {_LAST_POWER}, then every {self.every}"
        further = ", ".join(map(str, self.also))
        parts = [regular, further and f"also {further}", "and the last"]
        if self.until is not None:
            parts[-1] += f", if not after {self.until}"
        return ", ".join(filter(None, parts))


def _check_whole(also: Any, **steps: Any) -> None:
    for name, value in steps.items():
        if not isinstance(value, int | None):
            raise ValueError(f"`{name}` is {value!r}, expected a whole number of steps.")
    listed = isinstance(also, list | tuple) and all(isinstance(step, int) for step in also)
    if also is not None and not listed:
        raise ValueError(f"`also` is {also!r}, expected a list of steps, such as [10, 20].")


def _series_in(folder: Path) -> dict[int, Path]:
    """The files with names of a series, by step."""
    found = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step=*.ckpt"))
    return {int(name[1]): path for name, path in found if name is not None}


def _is_of_series(path: Path) -> bool:
    """Whether this callback has written a file; a ModelCheckpoint may use such names too."""
    # Without unpickling: hyperparameters of a foreign module may be objects of any class.
    try:
        with ZipFile(path) as file:
            names = [name for name in file.namelist() if name.endswith("data.pkl")]
            return any(SERIES_ENTRY.encode() in file.read(name) for name in names)
    except (OSError, BadZipFile):
        return False


def _move_away(folder: Path, series: Mapping[int, Path]) -> None:
    if not series:
        return
    number = 1
    while (older := folder / f"older.{number}").exists():
        number += 1
    older.mkdir()
    for path in series.values():
        path.rename(older / path.name)


def _updates(module: LightningModule) -> int:
    return asked(module, RuleProtocol.updates_per_step, 1) if is_rule(module) else 1


def _steps_are_known(module: LightningModule) -> bool:
    """Whether the steps of a training batch are known; manual optimization may make any number."""
    return module.automatic_optimization or is_rule(module)


def _last_step(trainer: Trainer, module: LightningModule) -> int | None:
    """The step with which a fit ends, if nothing stops it; None if this is not known."""
    ends = [trainer.max_steps] if trainer.max_steps != -1 else []
    epochs, batches = trainer.max_epochs, trainer.num_training_batches
    if epochs not in (None, -1) and batches != math.inf and _steps_are_known(module):
        steps = math.ceil(batches / trainer.accumulate_grad_batches)
        ends.append(epochs * steps * _updates(module))
    return min(ends, default=None)


def _bytes(size: float) -> str:
    """A number of bytes with its unit.

    Example:
        >>> _bytes(80_541), _bytes(1_234_567), _bytes(5e9)
        ('81 kB', '1.2 MB', '5.0 GB')
    """
    if size < 1e6:
        return f"{math.ceil(size / 1e3)} kB"
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
