"""The run's validation metrics as a history file."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lit_credit.utils.both_packages import Callback
from lit_credit.utils.history import History
from lit_credit.utils.trainer import epochs_completed, run_folder
from lit_credit.utils.watched import is_measured

__all__ = ["MetricHistory"]


class MetricHistory(Callback):
    """Every validation's metrics as one row of ``<log_dir>/metrics.jsonl``.

    ``Trainer(num_sanity_val_steps=-1)`` validates before training on all of the data; that is the
    row of epoch 0. Rows hold what the module logged under names that begin with ``val``
    (``val/accuracy``, ``val_loss``); one taken in mid-epoch counts the epochs completed by then.

    Costs nothing: it reads what Lightning has computed. A run resumed from a checkpoint that was
    saved after an epoch's last batch and before its end (``every_n_train_steps``) lacks the row of
    that epoch, whose validation Lightning leaves out.
    """

    name = "metrics"

    def __init__(self) -> None:
        self.history = History()
        self._path: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the run's folder."""
        if stage == "fit":
            folder = run_folder(trainer)
            self._path = folder and folder / f"{self.name}.jsonl"
            self.history = History()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file, with the rows of a resumed run."""
        self.history = History(self._path, self.history.rows)

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the validation before training, if it covered all of the data."""
        if trainer.num_sanity_val_batches == trainer.num_val_batches:
            self._record(trainer, 0)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record a validation."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._record(trainer, epochs_completed(trainer))

    def _record(self, trainer: Trainer, epoch: int) -> None:
        rows, step = self.history.rows, trainer.global_step
        metrics = trainer.callback_metrics.items()
        values = {k: float(v) for k, v in metrics if k.startswith("val")}
        values = {k: v for k, v in values.items() if not is_measured(trainer, k)}
        if trainer.is_global_zero and values and not (rows and rows[-1]["step"] >= step):
            self.history.append(step, epoch, self.name, values)

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.history.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the rows of a resumed run."""
        self.history = History(rows=state_dict["rows"])
