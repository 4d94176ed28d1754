"""Writing the configuration into a run's folder, at its start and when it is resumed."""

from pathlib import PurePath
from typing import Any

import yaml
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from lit_credit.runs.run_folder import config_number
from lit_credit.utils.paths import local_path

__all__ = ["SaveFitConfig"]

_NOT_OF_TRAINING = ("ckpt_path", "init_from", "on_resume", "test_after_fit")
"""Options that say how a run starts and ends; ignored in comparisons."""


class SaveFitConfig(SaveConfigCallback):
    """Writes ``config.yaml`` into the folder of a run when it trains, not when it is tested.

    The file holds the configuration of the run's start, and is not changed later. A run that is
    resumed with another configuration, such as more epochs, writes ``config-1.yaml``, then
    ``config-2.yaml``.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write nothing yet: the checkpoint to resume from may still be refused."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file.

        This callback is the last one: if a first measurement fails, no configuration is written.
        """
        folder: Any = trainer.log_dir  # broadcasts, so every process must ask
        if self.already_saved or not trainer.is_global_zero:
            return
        self.already_saved = True
        # The parser has checked every value; to check them again would take longer than to write.
        text = self.parser.dump(self.config, skip_unset=False, skip_validation=True)
        folder = local_path(folder)
        system = get_filesystem(folder)
        if (name := _new_name(system, folder, text)) is not None:
            system.makedirs(folder, exist_ok=True)
            with system.open(f"{folder}/{name}", "w", encoding="utf-8") as file:
                file.write(text)
            self.show(trainer, name, text)

    def show(self, trainer: Trainer, name: str, text: str) -> None:
        """Show a file that was written; by default nowhere.

        Args:
            trainer: the Trainer.
            name: name of the file.
            text: the configuration as YAML.
        """


def _new_name(system: Any, folder: Any, text: str) -> str | None:
    """The name of the file to write; None if the newest file holds the same configuration."""
    paths = [str(path) for path in system.glob(f"{folder}/config*.yaml")]
    names = [path for path in paths if PurePath(path).name == "config.yaml" or config_number(path)]
    if not names:
        return "config.yaml"
    last = max(names, key=config_number)
    with system.open(last, "r") as file:
        same = _of_training(file.read()) == _of_training(text)
    return None if same else f"config-{config_number(last) + 1}.yaml"


def _of_training(text: str) -> Any:
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    if isinstance(config, dict):
        return {key: value for key, value in config.items() if key not in _NOT_OF_TRAINING}
    return config
