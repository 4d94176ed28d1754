"""The base class of diagnostics that also measure in a test."""

from collections.abc import Sequence

from lightning.pytorch import LightningModule, Trainer

from lit_credit.callbacks.base.diagnostic import Diagnostic
from lit_credit.runs.checkpoints import checkpoint_step, rows_beside
from lit_credit.runs.history import History, Row
from lit_credit.trainer.rank_zero import waiting_for_rank_zero

__all__ = ["TestedDiagnostic"]


class TestedDiagnostic(Diagnostic):
    """A scheduled diagnostic that measures once more at the end of ``trainer.test``.

    Scalars, tables and figures go where the test writes. The history of the run is read for the
    curves over training, but not written. It comes from the tested checkpoint if that has a state
    of the diagnostic, else from the files of the checkpoint's run.
    """

    __test__ = False  # pytest would take the class for a test

    def earlier_rows(self, checkpoint: str, section: str) -> list[Row]:
        """The rows in the folder of the run that saved a checkpoint."""
        return rows_beside(checkpoint, self._numbered(self.name))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check everything that can be checked before a fit or a test."""
        super().setup(trainer, pl_module, stage)
        if stage == "test":
            self._find_place(trainer)
            self._proved = None
            if trainer.ckpt_path:
                self.history = History()  # the checkpoint's is loaded later
            self.prepare(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the tested module, and sum up."""
        step, checkpoint = trainer.global_step, str(trainer.ckpt_path or "")
        rows: Sequence[Row] = self.history.read_again(step, checkpoint)
        if checkpoint:
            step = checkpoint_step(checkpoint)
            rows = rows or self.earlier_rows(checkpoint, self._numbered(self.section))
        self.history = History(rows=[row for row in rows if row["step"] < step])
        self._drawn_step = -1
        self.measure_at(step, trainer, pl_module, trainer.current_epoch)
        with waiting_for_rank_zero(trainer, type(self).__name__):
            self._sum_up(trainer)
