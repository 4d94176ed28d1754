"""Where the curves of a run go, unless the configuration names another logger."""

from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

__all__ = ["RunLogger"]


class RunLogger(TensorBoardLogger):
    """TensorBoard in the run's own folder; HPARAMS compares runs by the metrics of the task.

    Args:
        save_dir: empty takes ``DEFAULT_ROOT_DIR/RULE/seed_SEED``.
        default_hp_metric: add Lightning's ``hp_metric`` to those metrics.
        **kwargs: see ``lightning.pytorch.loggers.TensorBoardLogger``.
    """

    def __init__(
        self, save_dir: str = "", *, default_hp_metric: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(save_dir, default_hp_metric=default_hp_metric, **kwargs)
