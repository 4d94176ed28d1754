"""The command line: ``lit-credit fit --config FILE``."""

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
    SaveConfigCallback,
)

# Imported so that YAML may call their classes by their short names.
import lit_credit.callbacks
import lit_credit.datamodules
import lit_credit.feedback
import lit_credit.models
import lit_credit.tasks  # noqa: F401
from lit_credit import compare
from lit_credit.rules import CreditRule
from lit_credit.utils.trainer import is_fast_dev_run

__all__ = ["LitCreditCLI", "main", "run"]

_DEFAULTS = Path(__file__).with_name("defaults.yaml")
_DESCRIPTION = """Experiments on credit assignment in neural networks.

`lit-credit fit --config FILE` trains; `lit-credit compare RUN... --out DIR` compares runs;
`lit-credit sweep --config FILE --grid GRID --out TABLE` runs a grid of overrides and seeds."""


class SaveFitConfig(SaveConfigCallback):
    """Writes ``config.yaml`` into the folder of a run when it trains, not when it is tested."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file; a resumed run writes it again."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)


class LitCreditCLI(LightningCLI):
    """``LightningCLI`` with a folder for each run: ``DEFAULT_ROOT_DIR/RULE/seed_SEED``."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; a call of ``main`` from a process that has arguments of its own is no mistake."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
            super().parse_arguments(parser, args)

    def before_instantiate_classes(self) -> None:
        """Name the folder of the run."""
        config = self.config[self.subcommand]
        loggers = config.trainer.logger
        self._as_written: list[tuple[Any, dict[str, Any]]] = []
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            arguments = getattr(logger, "init_args", None)
            if arguments is not None and arguments.get("save_dir") == "":
                names = ("save_dir", "name", "version")
                self._as_written.append((arguments, {name: arguments[name] for name in names}))
                arguments.save_dir = str(config.trainer.default_root_dir)
                arguments.name = config.model.class_path.rpartition(".")[2]
                arguments.version = f"seed_{config.seed_everything}"
                if self.subcommand != "fit" and "sub_dir" in arguments:
                    # Beside the curves of the run, which would have a second point at step 0.
                    arguments.sub_dir = self.subcommand

    def before_fit(self) -> None:
        """Refuse a folder that holds a run, unless that run is to be resumed.

        Raises:
            MisconfigurationException: if the run's folder has a ``config.yaml``.
        """
        # The configuration is saved as it was written, so that the seed and the folder that a later
        # run gives beside it move that run.
        for arguments, written in self._as_written:
            for name, value in written.items():
                arguments[name] = value
        # Ranks that the first one starts come here when it has written its configuration.
        if is_fast_dev_run(self.trainer) or int(os.environ.get("LOCAL_RANK", "0")) > 0:
            return
        loggers = [folder for x in self.trainer.loggers if (folder := getattr(x, "log_dir", None))]
        for folder in loggers or [self.trainer.default_root_dir]:
            if Path(folder, "config.yaml").exists() and not self._resumes(Path(folder)):
                raise MisconfigurationException(
                    f"{folder} holds a run already. Resume it with `--ckpt_path last`, or choose "
                    "another folder with `--trainer.default_root_dir`, or another seed with "
                    "`--seed_everything`."
                )

    def _resumes(self, folder: Path) -> bool:
        """Whether training goes on from a checkpoint of the run in ``folder``."""
        checkpoint = self.config[self.subcommand].get("ckpt_path")
        if not checkpoint or not Path(checkpoint).exists():
            return bool(checkpoint)  # a word such as `last`
        places = [c.dirpath for c in self.trainer.checkpoint_callbacks if hasattr(c, "dirpath")]
        own = [Path(place).resolve() for place in (folder, *places) if place]
        return any(place in Path(checkpoint).resolve().parents for place in own)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: the words after ``lit-credit``; None takes those of the process.

    Returns:
        The exit code: 0, or 1 after an error that the user can mend, which is printed in one line.
        ``LIT_CREDIT_TRACEBACK=1`` shows where such an error was raised.
    """
    words = list(sys.argv[1:] if args is None else args)
    if words[:1] == ["compare"]:
        return compare.main(words[1:])
    if words[:1] == ["sweep"]:
        from lit_credit.sweep import command  # which runs the commands of this module

        return command.main(words[1:])
    try:
        run(words)
    except (MisconfigurationException, ValueError) as error:
        if os.environ.get("LIT_CREDIT_TRACEBACK"):
            raise
        print(f"lit-credit: error: {_reason(error)}", file=sys.stderr)
        return 1
    return 0


def run(words: Sequence[str]) -> LitCreditCLI:
    """Run a command of Lightning's; raises what :func:`main` reports.

    Args:
        words: the subcommand and its arguments.

    Returns:
        What has run, with its ``trainer``.
    """
    kwargs: dict[str, Any] = {
        "default_config_files": [str(_DEFAULTS)],
    }
    return LitCreditCLI(
        CreditRule,
        LightningDataModule,
        args=list(words),
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        save_config_callback=SaveFitConfig,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={
            "prog": "lit-credit",
            "description": _DESCRIPTION,
            **dict.fromkeys(LightningCLI.subcommands(), kwargs),
        },
    )


def _reason(error: BaseException) -> BaseException:
    """What a constructor raised, out of jsonargparse's list of all the types that it has tried."""
    while str(error).startswith("Does not validate against any") and error.__cause__ is not None:
        error = error.__cause__
    return error
