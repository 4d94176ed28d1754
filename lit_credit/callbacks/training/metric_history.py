"""The run's validation and test metrics as files of rows."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lit_credit.callbacks.base.evaluation import progress_in_evaluation
from lit_credit.callbacks.base.report import diagnostics_of
from lit_credit.runs.checkpoints import progress_of
from lit_credit.runs.files import spared, write_files
from lit_credit.runs.history import History
from lit_credit.runs.history_rows import lines_of
from lit_credit.trainer.curves_again import continue_curves
from lit_credit.trainer.logging import VALIDATION_CHARTS, log_charts
from lit_credit.trainer.missed_validation import missed_validation, run_missed_validation
from lit_credit.trainer.trainer import epochs_completed, run_folder, stage_folder
from lit_credit.trainer.watched import is_measured
from lit_credit.utils.both_packages import Callback

__all__ = ["MetricHistory"]


class MetricHistory(Callback):
    """Every validation's metrics as one row of ``<log_dir>/metrics.jsonl``.

    ``Trainer(num_sanity_val_steps=-1)`` validates on all data before training, which gives the row
    of epoch 0. Rows hold the metrics that the module logged under names that begin with ``val``
    (``val/accuracy``, ``val_loss``). A row from within an epoch counts the epochs completed by
    then.

    A test's metrics, under names that begin with ``test``, are the only row of ``test.jsonl``, in
    ``<log_dir>`` if the Trainer has fitted, else in ``<log_dir>/test``. A later test replaces it.

    Costs nothing: it reads what Lightning has computed. There is one exception: if a run was killed
    after a checkpoint at the end of a batch (``every_n_train_steps``) and before the end of the
    validation that follows this batch, Lightning leaves that validation out when it resumes the
    run. This callback then runs that validation. Checkpoints and early stopping are not called, and
    training does not change.
    """

    name = "metrics"

    def __init__(self) -> None:
        self.history = History()
        self._path: Path | None = None
        self._opened = self._missed = self._has_fitted = False
        self._tested: Path | None = None
        self._progress: tuple[int, int] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the run's folder."""
        if stage == "fit":
            folder = run_folder(trainer)
            self._path = folder and folder / f"{self.name}.jsonl"
            self.history, self._opened = History(), False
            self._has_fitted = True
        if stage == "test":
            own = self._has_fitted
            self._tested = run_folder(trainer) if own else stage_folder(trainer, "test")
            self._progress = None

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note the progress of the weights that are tested."""
        if trainer.state.fn == TrainerFn.TESTING:
            self._progress = progress_of(checkpoint)

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the validation before training, if it covered all data."""
        self.open(trainer)
        if trainer.num_sanity_val_batches == trainer.num_val_batches:
            self._record(trainer, 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file, with the rows of a resumed run, and run a missed validation."""
        self.open(trainer)
        if missed_validation(trainer):
            lacks_row = self.history.last_step < trainer.global_step
            if trainer.strategy.broadcast(lacks_row):
                self._missed = True
                run_missed_validation(trainer)
                self._missed = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record a validation."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            missed = self._missed  # its epoch is counted already
            self._record(trainer, trainer.current_epoch if missed else epochs_completed(trainer))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the row of a test."""
        values = _measured(trainer, "test")
        if self._tested is None or not values:
            return
        step, epoch = progress_in_evaluation(trainer, self._progress)
        row = {"step": step, "epoch": epoch, "name": "test", "values": values}
        with spared(self._tested / "test.jsonl"):
            write_files(self._tested, {"test.jsonl": lines_of([row])})

    def open(self, trainer: Trainer) -> None:
        """Open the file, with the rows of a resumed run."""
        if not self._opened:
            self._opened = True
            self.history.open(self._path, trainer.global_step, trainer.ckpt_path)
            continue_curves(trainer, self.history.saved_at)
            if not diagnostics_of(trainer):  # else the layout is theirs
                log_charts(trainer, VALIDATION_CHARTS)

    def _record(self, trainer: Trainer, epoch: int) -> None:
        step = trainer.global_step
        values = _measured(trainer, "val")
        if trainer.is_global_zero and values and self.history.last_step < step:
            self.history.append(step, epoch, self.name, values)

    def state_dict(self) -> dict[str, Any]:
        """The place of the rows so far."""
        return self.history.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the rows of a resumed run."""
        self.history.load(state_dict)


def _measured(trainer: Trainer, stage: str) -> dict[str, float]:
    """The metrics that the module has logged under names that begin with a stage."""
    metrics = trainer.callback_metrics.items()
    values = {k: float(v) for k, v in metrics if k.startswith(stage)}
    return {k: v for k, v in values.items() if not is_measured(trainer, k)}
