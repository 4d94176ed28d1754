"""The configurations in a run's folder: the first one, and those that it was resumed with."""

from pathlib import PurePath
from typing import Any

import yaml
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from lit_credit.runs.run_folder import config_number
from lit_credit.utils.paths import local_path

__all__ = ["SaveFitConfig"]

_STARTS = ("ckpt_path", "init_from", "on_resume")
"""Options that say how a run starts, not what it does."""


class SaveFitConfig(SaveConfigCallback):
    """Writes ``config.yaml`` into the folder of a run when it trains, not when it is tested.

    The file is that of the run's start and stays as it is. A run that is resumed with another
    configuration, such as more epochs, writes ``config-1.yaml``, then ``config-2.yaml``.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Nothing yet: a checkpoint that is then refused must not cost the run its own file."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file.

        Last of all callbacks: a slip that shows in a first measurement leaves no run behind.
        """
        folder = trainer.log_dir  # which is broadcast
        text = self.parser.dump(self.config, skip_none=False)
        name = _new_name(folder, text) if trainer.is_global_zero else None
        name = trainer.strategy.broadcast(name)
        if name is not None:
            self.config_filename = name
            super().setup(trainer, pl_module, "fit")


def _new_name(folder: Any, text: str) -> str | None:
    """The name to write to; None if the newest file says the same."""
    folder = local_path(folder)
    system = get_filesystem(folder)
    paths = [str(path) for path in system.glob(f"{folder}/config*.yaml")]
    names = [path for path in paths if PurePath(path).name == "config.yaml" or config_number(path)]
    if not names:
        return "config.yaml"
    last = max(names, key=config_number)
    with system.open(last, "r") as file:
        same = _without_start(file.read()) == _without_start(text)
    return None if same else f"config-{config_number(last) + 1}.yaml"


def _without_start(text: str) -> Any:
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    if isinstance(config, dict):
        return {key: value for key, value in config.items() if key not in _STARTS}
    return config
