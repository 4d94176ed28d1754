"""Writing and reading the files of a run: histories, folders, checkpoints, tables."""

from typing import TYPE_CHECKING

from lit_credit.utils.late_names import late_names

if TYPE_CHECKING:
    from lit_credit.runs.checkpoint_io import AtomicCheckpointIO
    from lit_credit.runs.foreign_weights import load_weights
    from lit_credit.runs.history import History
    from lit_credit.runs.history_rows import read_history
    from lit_credit.runs.run_folder import Run, find_runs, read_run

__all__ = [
    "AtomicCheckpointIO",
    "History",
    "Run",
    "find_runs",
    "load_weights",
    "read_history",
    "read_run",
]

if not TYPE_CHECKING:
    # Checkpoints load Lightning; reading histories needs none of it.
    __getattr__, __dir__ = late_names(
        __name__,
        {
            "checkpoint_io": "AtomicCheckpointIO",
            "foreign_weights": "load_weights",
            "history": "History",
            "history_rows": "read_history",
            "run_folder": "Run find_runs read_run",
        },
    )
