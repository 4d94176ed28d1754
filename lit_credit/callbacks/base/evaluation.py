"""What diagnostics need to measure in ``trainer.validate`` and ``trainer.test``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from lit_credit.runs.checkpoint_io import open_checkpoint
from lit_credit.runs.checkpoints import progress_of

if TYPE_CHECKING:
    from lit_credit.callbacks.base.report import ReportedDiagnostic

__all__ = ["EVALUATIONS", "progress_in_evaluation", "tell_of_evaluation", "tell_of_predict"]

EVALUATIONS = ("validate", "test")


def progress_in_evaluation(trainer: Trainer, loaded: tuple[int, int] | None) -> tuple[int, int]:
    """Optimizer steps taken and epochs completed by the weights that are validated or tested.

    Args:
        trainer: the Trainer, in ``validate`` or ``test``.
        loaded: the numbers of the loaded checkpoint, if Lightning has shown it to callbacks; it
            does not show one without states of callbacks.
    """
    if not trainer.ckpt_path:
        return trainer.global_step, trainer.current_epoch
    return progress_of(open_checkpoint(trainer.ckpt_path)) if loaded is None else loaded


def tell_of_evaluation(stage: str, diagnostics: Sequence["ReportedDiagnostic"]) -> None:
    """Say where rows and figures of a validation or test are, or that there are none."""
    files = [d.history.path for d in diagnostics if d.history.path is not None and d.history.rows]
    if not any(d.has_begun for d in diagnostics):
        rank_zero_info(
            f"The diagnostics measured nothing: `trainer.{stage}` had no batch, because its data "
            f"are empty, or `limit_{'val' if stage == 'validate' else stage}_batches` is 0."
        )
    elif files:
        kept = [path.stem for path in files if any(path.parent.glob(f"{path.stem}.*.jsonl"))]
        older = f" Rows of an earlier one are kept, as {kept[0]}.1.jsonl." if kept else ""
        rank_zero_info(f"Rows and figures of `{stage}` are in {files[0].parent}.{older}")


def tell_of_predict() -> None:
    """Say that diagnostics do not measure in ``trainer.predict``."""
    rank_zero_info(
        "Diagnostics measure nothing in `trainer.predict`. Call `trainer.validate`, "
        "`trainer.test` or `lit_credit.diagnose` on the data instead."
    )
