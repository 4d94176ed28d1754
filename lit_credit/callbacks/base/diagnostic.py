"""The base class of diagnostics: the schedule, and the way from a probe to a row."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.evaluation import (
    EVALUATIONS,
    progress_in_evaluation,
    tell_of_evaluation,
    tell_of_predict,
)
from lit_credit.callbacks.base.failures import Attempts, named, out_of_memory_named, tell_undefined
from lit_credit.callbacks.base.older_states import rename_older_state
from lit_credit.callbacks.base.report import Report, ReportedDiagnostic, diagnostics_of
from lit_credit.callbacks.base.values import Gathered, as_numbers
from lit_credit.inspect.state.guard import guarded, isolated
from lit_credit.runs.checkpoints import progress_of, rows_beside
from lit_credit.runs.history import History, Row
from lit_credit.trainer.logging import log_scalars
from lit_credit.trainer.rank_zero import waiting_for_rank_zero
from lit_credit.trainer.stage_loggers import close_stage_loggers, stage_loggers
from lit_credit.trainer.trainer import (
    check_trainer,
    epochs_completed,
    is_at_epoch_start,
    is_last_epoch,
)
from lit_credit.trainer.watched import check_tags, check_times, watch
from lit_credit.utils.compiled import check_compiled
from lit_credit.utils.private_names import state_key_of
from lit_credit.utils.ranges import check_range

__all__ = ["Diagnostic"]


class Diagnostic(ReportedDiagnostic, ABC):
    """A metric of the module, measured before training, on a schedule, and at the end of fit.

    ``trainer.validate`` and ``trainer.test`` measure once, into ``<log_dir>/validate`` and
    ``<log_dir>/test``. After a fit, ``history`` stays that of the fit.

    Like a metric of torchmetrics it has ``reset()``, ``update(chunk)`` and ``compute()``. This base
    needs no data: its only chunk holds the module. :class:`lit_credit.callbacks.ProbeDiagnostic`
    adds the rows of a fixed probe, :class:`lit_credit.callbacks.ContextDiagnostic` all contexts of
    a known distribution.

    Each measurement is one row of ``<log_dir>/<name>.jsonl``, and one scalar per tag in every
    logger. A quantity with more than 64 heads is logged as one mean per layer:
    ``<section>/<quantity>/<module>/mean``. At the end of fit a figure goes to TensorBoard or W&B,
    and to ``<log_dir>/figures/<name>.png``. Some diagnostics also write a table,
    ``<log_dir>/<name>.csv``, and print what it says. A second callback of the same name in one
    Trainer gets a number: ``<name>-1.jsonl``, ``<section>-1/...``. Only rank zero measures;
    training is not changed by a single bit.

    A measurement runs eagerly even if the module is compiled, and in the precision of the weights,
    without autocast. It sees the weights being trained even if a callback averages them, except in
    the epoch that ``StochasticWeightAveraging`` adds for batch norms.

    With ``ddp_spawn`` or ``ddp_notebook`` the process that measures is gone after fit, and
    ``history`` of your callback stays empty: read the files. Strategies that shard weights are
    refused.

    The first measurement of a run may raise, before any work could be lost. If a later measurement
    raises, its row is NaN, one warning tells of it, and the run continues.

    Args:
        every_n_epochs: measure after every so many epochs.
        every_n_steps: measure after every so many optimizer steps instead.
        figure: draw the figure.

    Raises:
        ValueError: if an interval is below 1, or both are given.
    """

    options: ClassVar[Sequence[str]] = ()
    """The subclass's own arguments, by which two instances in one Trainer may differ."""
    reads_training: ClassVar[bool] = False
    """Whether a validation or test reads the rows of training, and draws them before its own."""
    mode: str = "eval"
    """The mode of the module while it is measured; "train" leaves it as it is in training."""

    def __init__(
        self,
        *,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figure: bool = True,
    ) -> None:
        if every_n_epochs is not None and every_n_steps is not None:
            raise ValueError(
                f"`every_n_epochs` is {every_n_epochs} and `every_n_steps` is {every_n_steps}; "
                "give one of them."
            )
        check_range(1, every_n_epochs=every_n_epochs, every_n_steps=every_n_steps)
        super().__init__(figure)
        self.every_n_epochs = (
            1 if every_n_epochs is None and every_n_steps is None else every_n_epochs
        )
        self.every_n_steps = every_n_steps
        self.gathered = Gathered()
        self.attempts = Attempts(type(self).__name__)
        self._proved: dict[str, float] | None = None
        self._measured = self._summed_up = False
        self._stage = ""
        self._evaluates = False
        self._of_fit: dict[str, Any] | None = None
        self._progress: tuple[int, int] | None = None

    # What a diagnostic defines

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Resolve names and check what the module offers, in ``setup``."""

    def begin(self, trainer: Trainer, module: LightningModule) -> None:
        """Take the data to measure on, before the first measurement; on rank zero.

        Called when training starts or is resumed, and at the first batch of ``trainer.validate``
        and ``trainer.test``.
        """

    def prove(self, chunk: Chunk) -> dict[str, float]:
        """Check the module's assumed structure against numbers, before the first measurement.

        Called once a fit, validation or test, on the first chunk.

        Returns:
            Each proved statement with its largest relative error. The first row of the history
            holds them as ``proved``.

        Raises:
            MisconfigurationException: if the structure is not what the measurement assumes.
        """
        return {}

    def chunks(self, module: LightningModule) -> Iterable[Chunk]:
        """The chunks that :meth:`update` gets, one by one; here one chunk without data."""
        return [Chunk(module)]

    def reset(self) -> None:
        """Forget what :meth:`update` has gathered."""
        self.gathered = Gathered()

    @abstractmethod
    def update(self, chunk: Chunk) -> None:
        """Measure a chunk; called in eval mode with gradients enabled."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Values by tag, without the section, from all gathered chunks."""

    def measure(
        self, module: LightningModule, chunks: Iterable[Chunk] | None = None
    ) -> dict[str, float]:
        """One measurement: reset, update with every chunk, compute.

        Args:
            module: the module.
            chunks: replace those of :meth:`chunks`; None takes those.

        Returns:
            Values by tag, without the section.
        """
        self.reset()
        try:
            for chunk in self.chunks(module) if chunks is None else chunks:
                self.update(chunk)
            return self.compute()
        finally:
            self.reset()

    def remember(self, state: Mapping[str, Any]) -> None:
        """Take from the state of a run what its earlier measurements say about the next one.

        A diagnosis calls it for checkpoints that hold a state of this diagnostic, before it
        measures there. Rows are not taken.

        Args:
            state: what :meth:`state_dict` returned in the run.
        """

    def earlier_rows(self, checkpoint: str, section: str) -> list[Row]:
        """The rows of the run that saved an evaluated checkpoint, for ``reads_training``.

        Called if the checkpoint has no state of the diagnostic.

        Args:
            checkpoint: path of the checkpoint.
            section: first part of the tags.
        """
        return rows_beside(checkpoint, self.stem)

    def smaller(self) -> str:
        """The remedy, as part of a sentence, if memory does not suffice."""
        chosen = "choose fewer `units`, or " if hasattr(self, "units") else ""
        return f"{chosen}leave it out on this machine"

    # Schedule

    @property
    def arguments(self) -> dict[str, Any]:
        """All arguments that affect the rows, by name."""
        names = ("every_n_epochs", "every_n_steps", *self.options)
        return {name: getattr(self, name) for name in names}

    @property
    def state_key(self) -> str:
        """A key that differs for every set of arguments that affect the rows, and every sibling."""
        return state_key_of(self, **self.arguments, sibling=self._rank_among_siblings)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Find the state even in a checkpoint of an older version."""
        keys = [other.state_key for other in diagnostics_of(trainer)]
        rename_older_state(checkpoint.get("callbacks", {}), self.state_key, keys)
        if self._evaluates:
            self._progress = progress_of(checkpoint)

    def state_dict(self) -> dict[str, Any]:
        """The place of the rows of fit so far."""
        return History().state() if self._stage in EVALUATIONS else super().state_dict()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check everything that can be checked before training, a validation or a test."""
        if stage not in ("fit", *EVALUATIONS):
            if diagnostics_of(trainer)[0] is self:
                tell_of_predict()
            return
        check_trainer(trainer, type(self).__name__)
        check_compiled(pl_module)
        if stage in EVALUATIONS and (self._stage == "fit" or self._evaluates):
            self._of_fit = vars(self).copy()  # given back by `_end_evaluation`
        self._evaluates = stage in EVALUATIONS
        self._stage = next(name for name in ("fit", *EVALUATIONS) if name == stage)  # of an Enum
        self._find_place(trainer, self._stage)
        self._forget()
        # Reading a weight may change it, as under spectral norm.
        with named(type(self).__name__), guarded(pl_module, trainer):
            self.prepare(trainer, pl_module)

    def _forget(self) -> None:
        """Reset the state of a previous fit or evaluation. Checkpoint state is loaded later."""
        self.history, self._last_step, self.report = History(), -1, Report()
        self._earlier, self._progress = [], None
        self._drawn_step = -1
        self._proved = None
        self._opened = self._measured = self._summed_up = False
        self._failed = set()
        self.attempts = Attempts(type(self).__name__)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure before the first step."""
        check_times(trainer, self)
        self.open(trainer, pl_module)
        epoch = trainer.current_epoch
        is_due = self._is_due(epoch) and is_at_epoch_start(trainer)
        # A callback before this one may have saved the checkpoint that the run resumes from.
        if self._last_step < 0 or is_due or self._is_step_due(trainer):
            self._measure(trainer, pl_module, epoch)
        check_tags(trainer, self)

    def open(self, trainer: Trainer, module: LightningModule) -> None:
        """Take the data and open the history, after ``setup`` and before the first measurement.

        Rank zero does so, and sends the last measurement to every process.
        """
        self._opened = True
        with waiting_for_rank_zero(trainer, type(self).__name__) as last:
            if trainer.is_global_zero:
                self._begin(trainer, module)
                last.update(step=self.history.last_step)
                last.update(self.history.rows[-1] if self.history.rows else {})
        self._last_step = last.get("step", -1)
        watch(trainer, last.get("values", {}))

    def _begin(self, trainer: Trainer, module: LightningModule) -> None:
        """Open the history, and take the data to measure on."""
        self._open_history(trainer)
        # Hooks of batch transfer may draw random numbers.
        with named(type(self).__name__), guarded(module, trainer, train=True):
            self.begin(trainer, module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure after a step that is due."""
        if self._is_step_due(trainer):
            self._measure(trainer, pl_module, epochs_completed(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure after an epoch that is due."""
        epoch = trainer.current_epoch + 1
        # Not in `on_train_end`, where averaged weights may have replaced the trained ones.
        if self._is_due(epoch) or is_last_epoch(trainer):
            self._measure(trainer, pl_module, epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the last step if that is not done yet, and sum up."""
        self._measure(trainer, pl_module, trainer.current_epoch)
        self.conclude(trainer, pl_module)

    def conclude(self, trainer: Trainer, module: LightningModule) -> None:
        """Make figures, tables and the reading, and write them."""
        with waiting_for_rank_zero(trainer, type(self).__name__):
            if trainer.is_global_zero and not self.has_measured:  # a resumed run that had ended
                self._spare(trainer, figure=lambda _: self._tagged(module))
            self._sum_up(trainer)
        self._summed_up = True

    @property
    def has_measured(self) -> bool:
        """Whether a measurement was tried since the last ``setup``."""
        return self._measured or self.attempts.told_at is not None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum up a fit with nothing to train, as after ``max_steps=0`` or the end of a resumed run.

        Lightning calls no other hook there. A run without rows is measured once.
        """
        if not self._summed_up:
            if not self._opened:
                self.open(trainer, pl_module)
            self.on_train_end(trainer, pl_module)

    # Validation and test

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure at the first batch of ``trainer.validate``.

        Whatever replaces weights for a validation, such as averaged ones, has done so by then.
        """
        self._at_first_batch(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum up ``trainer.validate``."""
        self._at_end(trainer, pl_module)

    on_test_batch_start = on_validation_batch_start
    on_test_end = on_validation_end

    def _at_first_batch(self, trainer: Trainer, module: LightningModule) -> None:
        self._evaluate(trainer, module)

    def _at_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self._evaluates and self._last_step >= 0:
            with (
                stage_loggers(trainer, self._stage),
                waiting_for_rank_zero(trainer, type(self).__name__),
            ):
                self._sum_up(trainer)

    def _evaluate(self, trainer: Trainer, module: LightningModule) -> None:
        """Measure once, in a validation or test that is not part of a fit."""
        if self._opened or not self._evaluates:
            return
        self._opened = True
        if (reason := self._not_evaluated()) is not None:
            rank_zero_info(
                f"{type(self).__name__} measures nothing in `trainer.{self._stage}`: {reason}"
            )
            return
        step, epoch = progress_in_evaluation(trainer, self._progress)
        with waiting_for_rank_zero(trainer, type(self).__name__):
            if trainer.is_global_zero:
                self._begin_evaluation(trainer, module, step)
        self.measure_at(step, trainer, module, epoch)

    def _begin_evaluation(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        """Read the rows before, open a new history, and take the data to measure on."""
        if self.reads_training:
            self._earlier = [row for row in self._rows_before(trainer, step) if row["step"] < step]
        self.history = History(self._history_file)
        # Hooks of batch transfer may draw random numbers.
        with named(type(self).__name__), guarded(module, trainer, train=True):
            self.begin(trainer, module)

    def _rows_before(self, trainer: Trainer, step: int) -> list[Row]:
        """The rows of the run whose weights are evaluated."""
        if not trainer.ckpt_path:
            rows: list[Row] = [] if self._of_fit is None else self._of_fit["history"].rows
            return rows
        checkpoint = str(trainer.ckpt_path)
        found = self.history.read_again(step, checkpoint)
        return found or self.earlier_rows(checkpoint, self.tag_prefix)

    def _not_evaluated(self) -> str | None:
        """Why a validation or test is not measured; None if it is."""
        return None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say where the rows of a validation or test are, and give back the state of a fit."""
        if self._evaluates and stage == self._stage:
            if diagnostics_of(trainer)[0] is self:
                close_stage_loggers(trainer)
                if trainer.is_global_zero:
                    tell_of_evaluation(self._stage, diagnostics_of(trainer))
            self._end_evaluation()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give back the state of a fit after a failed validation or test."""
        if self._evaluates:
            close_stage_loggers(trainer)
            self._end_evaluation()

    def _end_evaluation(self) -> None:
        self._evaluates = False
        if self._of_fit is not None:
            before = self._of_fit
            vars(self).clear()
            vars(self).update(before)

    def _is_due(self, epoch: int) -> bool:
        return self.every_n_epochs is not None and epoch % self.every_n_epochs == 0

    def _is_step_due(self, trainer: Trainer) -> bool:
        every = self.every_n_steps
        # Not `% every == 0`: several optimizers advance `global_step` by two or three at once.
        return every is not None and trainer.global_step // every > self._last_step // every

    def _measure(self, trainer: Trainer, module: LightningModule, epoch: int) -> None:
        step = trainer.global_step
        if self._last_step < step:
            self.measure_at(step, trainer, module, epoch)

    def measure_at(self, step: int, trainer: Trainer, module: LightningModule, epoch: int) -> None:
        """Measure on rank zero, and write the row.

        Args:
            step: optimizer steps taken.
            trainer: the Trainer.
            module: the module.
            epoch: epochs completed.
        """
        self._last_step = step
        with waiting_for_rank_zero(trainer, type(self).__name__) as tagged:
            if trainer.is_global_zero:
                tagged.update(self._row(step, trainer, module, epoch))
        watch(trainer, tagged)

    def _row(
        self, step: int, trainer: Trainer, module: LightningModule, epoch: int
    ) -> dict[str, float]:
        """One row, on rank zero."""
        tagged = self.attempts.values(lambda: self._tagged(module), self.history.rows, step)
        if not tagged:
            return {}
        if self.attempts.told_at != step:
            tell_undefined(self.history.rows, step, tagged)
        proved = {} if self.history.rows else self._proved
        self.history.append(step, epoch, self.name, tagged, proved)
        logged = self.logged(tagged)
        with stage_loggers(trainer, self._stage) if self._evaluates else nullcontext():
            log_scalars(trainer, logged, step, self.described)
            if self.draw_each:
                self._spare(trainer, figure=self._draw)
        return {**tagged, **logged}

    def _tagged(self, module: LightningModule) -> dict[str, float]:
        with (
            out_of_memory_named(self),
            guarded(module, module.trainer, train=self.mode == "train"),
        ):
            if self._proved is None:  # again in a resumed run, whose first row has it already
                with isolated(module):
                    self._proved = self.prove(next(iter(self.chunks(module))))
            values = as_numbers(type(self).__name__, self.measure(module))
        self._measured = True
        section = self.tag_prefix
        return {f"{section}/{tag}": value for tag, value in values.items()}


TestedDiagnostic = Diagnostic  # the name of before for a diagnostic that also measures in a test
