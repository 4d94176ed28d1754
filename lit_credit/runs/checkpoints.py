"""Reading the step of a checkpoint, and the histories beside it."""

from pathlib import Path

from lit_credit.runs.checkpoint_io import read_checkpoint
from lit_credit.runs.history import Row, read_history
from lit_credit.utils.paths import local_path

__all__ = ["checkpoint_step", "rows_beside"]


def checkpoint_step(path: str | Path) -> int:
    """Number of optimizer steps taken when a checkpoint was saved; 0 if it does not tell."""
    return int(read_checkpoint(path).get("global_step", 0))


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
