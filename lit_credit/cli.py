"""The command line: ``lit-credit fit --config FILE``."""

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
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
from lightning.pytorch.utilities.exceptions import SIGTERMException

# Imported so that YAML may call their classes by their short names.
import lit_credit.callbacks
import lit_credit.datamodules
import lit_credit.feedback
import lit_credit.models
import lit_credit.tasks  # noqa: F401
from lit_credit import compare
from lit_credit.boundary import FirstStep, report
from lit_credit.parser import ShortErrorParser
from lit_credit.rules import CreditRule
from lit_credit.trainer_options import blamed_option, check_options
from lit_credit.utils.checkpoint_io import save_atomically
from lit_credit.utils.files import check_folder
from lit_credit.utils.lock import hold_folder
from lit_credit.utils.trainer import callbacks_of, is_fast_dev_run

__all__ = ["CTRL_C", "LitCreditCLI", "main", "run"]

CTRL_C = 130
"""The exit code after it."""

_DEFAULTS = Path(__file__).with_name("defaults.yaml")
_DESCRIPTION = """Experiments on credit assignment in neural networks.

`lit-credit fit --config FILE` trains; `lit-credit compare RUN... --out DIR` compares runs;
`lit-credit sweep --config FILE --grid GRID --out TABLE` runs a grid of overrides and seeds."""


class SaveFitConfig(SaveConfigCallback):
    """Writes ``config.yaml`` into the folder of a run when it trains, not when it is tested."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Nothing yet: a checkpoint that is then refused must not cost the run its own file."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file; a resumed run writes it again.

        Last of all callbacks: a slip that shows in a first measurement leaves no run behind.
        """
        super().setup(trainer, pl_module, "fit")


class LitCreditCLI(LightningCLI):
    """``LightningCLI`` with a folder for each run: ``DEFAULT_ROOT_DIR/RULE/seed_SEED``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Run the command; what it holds is given up however that ends."""
        with ExitStack() as self._held:
            super().__init__(*args, **kwargs)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; a call of ``main`` from a process that has arguments of its own is no mistake."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
            super().parse_arguments(parser, args)
        seed = self.config[self.config.subcommand].get("seed_everything")
        if type(seed) is int and not 0 <= seed < 2**32:
            raise ValueError(f"`seed_everything` is {seed}, expected 0 to 4294967295.")

    def _parse_ckpt_path(self) -> None:
        """What is run is what is configured, also where ``--ckpt_path`` is a file.

        Lightning 2.6 would put the checkpoint's rule, net and learning rate in its place, without a
        word. One that does not fit is refused when it is loaded.
        """

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the Trainer, whose checkpoints are whole or not there."""
        options = dict(self.config_init[self.subcommand].trainer)
        check_options(options)
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except Exception as error:
            raise ValueError(f"`trainer` cannot be made{blamed_option(error, options)}") from error
        callbacks_of(trainer).append(FirstStep())
        save_atomically(trainer)
        return trainer

    def before_instantiate_classes(self) -> None:
        """Name the folder of the run."""
        config = self.config[self.subcommand]
        loggers = config.trainer.logger
        self._as_written: list[tuple[Any, dict[str, Any]]] = []
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            arguments = getattr(logger, "init_args", None)
            if arguments is not None and arguments.get("save_dir") == "":
                names = [n for n in ("save_dir", "name", "version") if n in arguments]
                self._as_written.append((arguments, {name: arguments[name] for name in names}))
                place = {
                    "save_dir": str(config.trainer.default_root_dir),
                    "name": config.model.class_path.rpartition(".")[2],
                    "version": f"seed_{config.seed_everything}",
                }
                for name in names:
                    arguments[name] = place[name]
                if self.subcommand != "fit" and "sub_dir" in arguments:
                    # Beside the curves of the run, which would have a second point at step 0.
                    arguments.sub_dir = self.subcommand

    def before_fit(self) -> None:
        """Take the folder of the run; refuse one that holds a run that is not to be resumed.

        Raises:
            MisconfigurationException: if the run's folder has a ``config.yaml``.
            ValueError: if nothing can be written there, or another process is writing there.
        """
        # The configuration is saved as it was written, so that the seed and the folder that a later
        # run gives beside it move that run.
        for arguments, written in self._as_written:
            for name, value in written.items():
                arguments[name] = value
        # The first rank holds the folder for the others.
        if is_fast_dev_run(self.trainer) or not self.trainer.is_global_zero:
            return
        loggers = [folder for x in self.trainer.loggers if (folder := getattr(x, "log_dir", None))]
        folders = loggers or [self.trainer.default_root_dir]
        for folder in {os.path.realpath(folder): folder for folder in folders}.values():
            check_folder(folder)
            self._held.enter_context(hold_folder(folder))
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
        The exit code: 0; 1 after an error, which is printed in one line if it came before the first
        step, see :mod:`lit_credit.boundary`; 130 after Ctrl-C and 143 after SIGTERM.

    Raises:
        Exception: any error as it is, if ``LIT_CREDIT_TRACEBACK`` is set.
    """
    words = list(sys.argv[1:] if args is None else args)
    try:
        if words[:1] == ["compare"]:
            return compare.main(words[1:])
        if words[:1] == ["sweep"]:
            from lit_credit.sweep import command  # which runs the commands of this module

            return command.main(words[1:])
        run(words)
    except Exception as error:
        return report(error)
    except (KeyboardInterrupt, SystemExit) as stop:
        return _stopped(stop, words)
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
    # Lightning's own use of a deprecated torch API, on every run.
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    return LitCreditCLI(
        CreditRule,
        LightningDataModule,
        args=list(words),
        parser_class=ShortErrorParser,
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


def _stopped(stop: BaseException, words: Sequence[str]) -> int:
    """The exit code after a signal, and how to go on; any other exit goes its way.

    Lightning turns Ctrl-C into an exit of code 1, and SIGTERM into one without a code, that is 0.
    """
    if isinstance(stop, KeyboardInterrupt) or isinstance(stop.__context__, KeyboardInterrupt):
        name, code = "Ctrl-C", CTRL_C
    elif isinstance(stop, SIGTERMException):
        name, code = "SIGTERM", 143
    else:
        raise stop
    remedy = " The same command with `--ckpt_path last` goes on." if words[:1] == ["fit"] else ""
    print(f"lit-credit: stopped by {name}.{remedy}", file=sys.stderr)
    return code
