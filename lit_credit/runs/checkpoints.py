"""Reading the progress of a checkpoint, and the histories beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_credit.runs.checkpoint_io import read_checkpoint
from lit_credit.runs.history import Row, read_history
from lit_credit.runs.saved_steps import epochs_in, step_in
from lit_credit.utils.paths import local_path

__all__ = ["checkpoint_step", "progress_of", "rows_beside"]


def checkpoint_step(path: str | Path) -> int:
    """Number of optimizer steps taken when a checkpoint was saved; 0 if it does not tell."""
    return progress_of(read_checkpoint(path))[0]


def progress_of(checkpoint: Mapping[str, Any]) -> tuple[int, int]:
    """Optimizer steps taken and epochs completed when a checkpoint was saved; 0 if untold.

    Args:
        checkpoint: the contents of a checkpoint of Lightning.
    """
    epochs = epochs_in(checkpoint)
    return step_in(checkpoint) or 0, int(checkpoint.get("epoch", 0)) if epochs is None else epochs


def rows_beside(checkpoint: str | Path, name: str) -> list[Row]:
    """Read a history of the run that saved a checkpoint.

    Args:
        checkpoint: path of the checkpoint, in the run's folder or a folder inside it.
        name: name of the history file without its ending.

    Returns:
        The rows; empty if there is no such file.
    """
    folder = Path(local_path(checkpoint, "ckpt_path")).resolve().parent
    for place in (folder, folder.parent):
        if (file := place / f"{name}.jsonl").is_file():
            return read_history(file)
    return []
