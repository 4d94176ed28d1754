"""The command ``lit-credit diagnose``: a configuration's diagnostics, over its checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace, dict_to_namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from lit_credit.callbacks.base.diagnostic import Diagnostic
from lit_credit.callbacks.training.metric_history import MetricHistory
from lit_credit.cli.fit import LitCreditCLI, run
from lit_credit.diagnosis import Diagnosis
from lit_credit.diagnosis.data import Data
from lit_credit.diagnosis.measuring import Measuring
from lit_credit.diagnosis.stand import standing, unsaid_devices
from lit_credit.runs.files import check_folder, write_files
from lit_credit.runs.run_folder import config_number
from lit_credit.runs.weight_series import weight_series
from lit_credit.trainer.trainer import callbacks_of
from lit_credit.utils.paths import local_path

__all__ = ["DiagnoseCLI", "DiagnosingTrainer", "main"]

_HERE = {
    "strategy": "auto",
    "devices": 1,
    "num_nodes": 1,
    "fast_dev_run": False,
    "barebones": False,
    "enable_checkpointing": None,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "profiler": None,
}
"""Options of the Trainer that a diagnosis sets: one process measures, and nothing is trained."""


class DiagnosingTrainer(Trainer):
    """A Trainer with the method that the command calls."""

    def diagnose(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | list[str] | None = None,
        key: str | None = None,
        out: str | None = None,
        weights_only: bool | None = None,
    ) -> Diagnosis:
        """Measure the diagnostics of a configuration over checkpoints.

        Args:
            model: the module.
            datamodule: its data.
            ckpt_path: a checkpoint, a folder of checkpoints, or a quoted pattern such as
                'ckpts/step_*.pt'; `last` means the run's last one. Without it, all checkpoints of
                the run whose config.yaml is given
            key: the key in the files below which the state_dict lies, if that is not clear
            out: folder for histories, figures, tables and TensorBoard events; by default the folder
                `diagnose` of the run. The same command continues after an interruption
            weights_only: has no effect, since files are never allowed to run code; a run's
                config.yaml has it
        """
        measuring = [c for c in callbacks_of(self) if isinstance(c, Diagnostic | MetricHistory)]
        self.callbacks = measuring
        if not any(isinstance(c, Diagnostic) for c in measuring):
            raise ValueError(
                "`trainer.callbacks` has no diagnostic to measure. Add one: "
                "`--trainer.callbacks+ ResidualNorms`."
            )
        series = weight_series(ckpt_path, key)
        self._put(model)
        with standing(self, model, Data(datamodule=datamodule)):
            return Measuring(self, model, Path(str(out))).each(series)

    def _put(self, model: LightningModule) -> None:
        """Give the module the precision and the device that it has in a fit."""
        self.strategy.connect(model)
        self.strategy.setup_environment()
        self.strategy.model = self.precision_plugin.convert_module(model)
        self.strategy.model_to_device()


class DiagnoseCLI(LitCreditCLI):
    """``LitCreditCLI`` with one command, which measures into the folder ``RUN/diagnose``."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The command alone."""
        return {"diagnose": LitCreditCLI.subcommands()["diagnose"]}

    def before_instantiate_classes(self) -> None:
        """Set where checkpoints and results lie, and how the Trainer runs."""
        super().before_instantiate_classes()
        config = self.config[self.subcommand]
        run = _run_of(config)
        if config.ckpt_path in (None, "last"):
            config.ckpt_path = str(_last(run) if config.ckpt_path == "last" else run)
        config.out = local_path(config.out or run / "diagnose", "--out")
        check_folder(config.out, "Give another `--out`.")
        for name, value in _HERE.items():
            config.trainer[name] = value
        logger = {"save_dir": config.out, "name": "", "version": ""}
        config.trainer.logger = dict_to_namespace(
            {"class_path": "lit_credit.trainer.loggers.RunLogger", "init_args": logger}
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the Trainer, without its lines about devices."""
        with unsaid_devices():
            return super().instantiate_trainer(**kwargs)

    def diagnose(self, **arguments: Any) -> None:
        """Measure, print what was found, and write the configuration beside it."""
        trainer: Any = self.trainer
        try:
            found = trainer.diagnose(**arguments)
        except (ValueError, FileNotFoundError) as error:
            if "`checkpoints`" not in str(error):
                raise
            # The name of the argument in Python.
            text = str(error).replace("`checkpoints`", "`--ckpt_path`")
            raise ValueError(text) from error
        config = self.config[self.subcommand]
        text = yaml.safe_dump(self.config_dump, sort_keys=False)
        write_files(Path(config.out), {"config.yaml": text.encode()})
        print(f"{found}\n\nWritten: {config.out}")


def _run_of(config: Namespace) -> Path:
    """The folder of the run: that of its ``config.yaml``, else the one where it would be."""
    for file in reversed(config.get("config") or []):
        path = Path(str(file))
        if config_number(path) or path.name == "config.yaml":
            return path.absolute().parent
    logger = config.trainer.logger
    first = logger[0] if isinstance(logger, list) and logger else logger
    arguments = getattr(first, "init_args", {})
    parts = [arguments.get(part) for part in ("save_dir", "name", "version")]
    return Path(*(str(part) for part in parts if part)) if any(parts) else Path("runs")


def _last(run: Path) -> str:
    """The checkpoint of most steps in a run's folder."""
    return list(weight_series(run))[-1].source


def main(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: ``diagnose`` and its arguments.
    """
    run(words, cli=DiagnoseCLI, model=LightningModule, data=None, trainer_class=DiagnosingTrainer)
