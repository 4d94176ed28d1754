"""The default logger of a run."""

from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger

__all__ = ["RunLogger"]


class RunLogger(TensorBoardLogger):
    """Logs to TensorBoard in the run's own folder; HPARAMS compares runs by the task's metrics.

    Args:
        save_dir: empty takes ``DEFAULT_ROOT_DIR/RULE/seed_SEED``, or ``DEFAULT_ROOT_DIR`` if that
            ends in ``seed_SEED``.
        default_hp_metric: add Lightning's ``hp_metric`` to those metrics.
        name: folder of the experiment below ``save_dir``; empty or None adds none.
        version: folder of the run below it; None takes the next free ``version_N``.
        log_graph: write the graph of a module that has an ``example_input_array``.
        prefix: written before every tag.
        sub_dir: folder of the event files below that of the run; None adds none.
        comment: no effect, since the folder is given; an argument of torch's ``SummaryWriter``.
        purge_step: hide earlier points from this step on, as after a crash.
        max_queue: largest number of points that wait for the disk.
        flush_secs: seconds between two writes to disk.
        filename_suffix: end of the names of event files.
    """

    def __init__(
        self,
        save_dir: str = "",
        *,
        default_hp_metric: bool = False,
        name: str | None = "lightning_logs",
        version: int | str | None = None,
        log_graph: bool = False,
        prefix: str = "",
        sub_dir: str | Path | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: int = 120,
        filename_suffix: str = "",
    ) -> None:
        super().__init__(
            save_dir,
            name=name,
            version=version,
            log_graph=log_graph,
            default_hp_metric=default_hp_metric,
            prefix=prefix,
            sub_dir=sub_dir,
            comment=comment,
            purge_step=purge_step,
            max_queue=max_queue,
            flush_secs=flush_secs,
            filename_suffix=filename_suffix,
        )
