"""Lightning's commands: ``lit-credit fit --config FILE``, ``validate``, ``test``, ``predict``."""

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from lit_credit.cli import starting
from lit_credit.cli.after_fit import test_trained
from lit_credit.cli.boundary import FirstStep
from lit_credit.cli.class_rules import exported_classes
from lit_credit.cli.commands import DESCRIPTION
from lit_credit.cli.ending import ending
from lit_credit.cli.kept_parsers import take_parser
from lit_credit.cli.parser import ShortErrorParser
from lit_credit.cli.trainer_options import blamed_option, check_options
from lit_credit.rules import CreditRule
from lit_credit.runs.checkpoint_io import save_atomically
from lit_credit.runs.run_config import SaveFitConfig
from lit_credit.runs.yaml_files import parse_yaml
from lit_credit.trainer.hyperparameters import configured
from lit_credit.trainer.logging import log_text
from lit_credit.trainer.trainer import callbacks_of
from lit_credit.utils.paths import localised
from lit_credit.utils.private_names import keep_configuration, parser_of_command, seed_again

__all__ = ["LitCreditCLI", "run"]

_DEFAULTS = Path(__file__).with_name("defaults.yaml")


class ShownConfig(SaveFitConfig):
    """Writes the configuration to the folder, and to TEXT of TensorBoard."""

    def show(self, trainer: Trainer, name: str, text: str) -> None:
        """Show the file as a block of code."""
        log_text(trainer, name.removesuffix(".yaml"), f"```yaml\n{text}```", trainer.global_step)


class LitCreditCLI(LightningCLI):
    """``LightningCLI`` with a folder for each run: ``DEFAULT_ROOT_DIR/RULE/seed_SEED``.

    A run without a seed (``--seed_everything false``) has the folder ``unseeded``. With the default
    logger, ``.../seed_SEED`` itself is the folder of the run: TensorBoard shows short names.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Run the command; locks on folders are released however the command ends."""
        with ExitStack() as self._held:
            super().__init__(*args, **kwargs)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's commands and ``diagnose``, with the arguments that are not their options."""
        return LightningCLI.subcommands() | {"diagnose": {"model", "datamodule"}}

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Take the parser that was kept for this kind of command, or build one."""
        if not take_parser(self):
            super().setup_parser(*args, **kwargs)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, without Lightning's warning about processes that have arguments of their own."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
            super().parse_arguments(parser, args)
        seed = self.config[self.config.subcommand].get("seed_everything")
        if type(seed) is int and not 0 <= seed < 2**32:
            raise ValueError(f"`seed_everything` is {seed}, expected 0 to 4294967295.")

    def configuration(self) -> dict[str, Any]:
        """The full configuration of the command, as ``--print_config`` prints it."""
        command = self.config.subcommand
        parser = parser_of_command(self, command)
        text = parser.dump(self.config[command], skip_unset=False, skip_validation=True)
        found: dict[str, Any] = parse_yaml(text)
        return found

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the Trainer; it writes each checkpoint completely or not at all."""
        options = dict(self.config_init[self.subcommand].trainer)
        check_options(options)
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except Exception as error:
            raise ValueError(f"`trainer` cannot be made{blamed_option(error, options)}") from error
        callbacks_of(trainer).append(FirstStep())
        save_atomically(trainer)
        return trainer

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options that say where a run starts."""
        starting.add_options(parser)

    def before_instantiate_classes(self) -> None:
        """Set the folder of the run, and make every path local."""
        config = self.config[self.subcommand]
        loggers, seed = config.trainer.logger, config.seed_everything
        self._as_written: list[tuple[Any, Any, Any]] = []
        localised(config, lambda *entry: self._as_written.append(entry))
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            arguments = getattr(logger, "init_args", None)
            if arguments is not None and arguments.get("save_dir") == "":
                root, rule = str(config.trainer.default_root_dir), config.model.class_path
                version = "unseeded" if seed is None or seed is False else f"seed_{seed}"
                place = {"save_dir": root, "name": rule.rpartition(".")[2], "version": version}
                if "sub_dir" in arguments and _is_of_one_run(Path(root), place["name"], version):
                    place |= {"name": "", "version": ""}
                for name in [name for name in place if name in arguments]:
                    self._as_written.append((arguments, name, arguments[name]))
                    arguments[name] = place[name]
                if self.subcommand != "fit" and "sub_dir" in arguments:
                    # Written into the run's own folder, its curves would get a second point at
                    # step 0.
                    arguments.sub_dir = self.subcommand
        # Lightning would make it with a second check of every value.
        self.config_dump = self.configuration()

    def _restore_spelling(self) -> None:
        """Restore the configuration as it was written, because it is saved in this form.

        A later run of the saved file then follows its own seed and its own folder.
        """
        for container, name, value in self._as_written:
            container[name] = value

    def _start(self) -> None:
        """Look up the checkpoint, and take its configuration or the weights to start from."""
        rule = type(self.model).__name__
        config = self.config[self.subcommand]
        path = starting.checkpoint_of(config, str(self.subcommand), self.trainer, rule)
        self._restore_spelling()
        if path and config.on_resume == "checkpoint" and starting.take_checkpoint(self, path):
            del self.config_dump  # modules would save the old values as their hyperparameters
            seed_again(self)
            self.before_instantiate_classes()
            self.instantiate_classes()
            self._restore_spelling()
            config = self.config[self.subcommand]
        self.model.on_resume = config.on_resume or "refuse"
        self.model.run_configuration = starting.configured_data(config)
        self._held.enter_context(configured(self.config_dump))
        self.config_init[self.subcommand].ckpt_path = None if path is None else str(path)
        starting.start_from_weights(config, self.model, path is not None)

    def before_fit(self) -> None:
        """Find the start, lock the run's folder, and refuse a folder that holds another run."""
        self._start()
        word = self.config[self.subcommand].ckpt_path
        checkpoint = self.config_init[self.subcommand].ckpt_path
        starting.take_folders(self.trainer, word, checkpoint, self._held)

    def after_fit(self) -> None:
        """Test the trained weights, unless ``--test_after_fit`` is false, and say what is next."""
        if self.config[self.subcommand].test_after_fit:
            test_trained(self.trainer, self.model, self.datamodule)
        if lines := ending(self.trainer, self.model):
            print(f"\n{lines}")

    def before_validate(self) -> None:
        """Look up the checkpoint."""
        self._start()

    before_test = before_predict = before_validate


# Lightning would replace the configuration by the checkpoint's. We keep ours: a checkpoint that
# does not fit is refused when it is loaded.
keep_configuration(LitCreditCLI)


def run(
    words: Sequence[str],
    *,
    parser_class: type[ShortErrorParser] = ShortErrorParser,
    cli: type[LitCreditCLI] | None = None,
    model: type[LightningModule] = CreditRule,
    data: type[LightningDataModule] | None = LightningDataModule,
    trainer_class: type[Trainer] = Trainer,
) -> LitCreditCLI:
    """Run a command of a Trainer. Its errors are raised, and reported by ``lit_credit.cli.main``.

    Args:
        words: the subcommand and its arguments.
        parser_class: class of the parser.
        cli: class of the CLI; None takes that of Lightning's commands.
        model: base class of what may be given as ``model``.
        data: base class of what must be given as ``data``; None lets ``data`` be left out.
        trainer_class: class that has the method of the subcommand.

    Returns:
        The CLI after the run, with its ``trainer``.
    """
    exported_classes()  # imports the classes, so that YAML may use their short names
    kwargs: dict[str, Any] = {
        "default_config_files": [str(_DEFAULTS)],
    }
    # Lightning itself uses a deprecated torch API in every run.
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    command = words[0] if words else ""
    if cli is None:
        cli = _with_parser_of(command)
        if command not in cli.subcommands():  # help, or an error that lists all commands
            from lit_credit.cli.diagnose import DiagnosingTrainer

            trainer_class = DiagnosingTrainer
    return cli(
        model,
        data,
        trainer_class=trainer_class,
        args=list(words),
        parser_class=parser_class,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        save_config_callback=ShownConfig,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={
            "prog": "lit-credit",
            "description": DESCRIPTION,
            **dict.fromkeys(cli.subcommands(), kwargs),
        },
    )


def _is_of_one_run(root: Path, rule: str, version: str) -> bool:
    """Whether the folder is that of one seed, and no earlier version has put a run deeper in it."""
    return root.name == version and not (root / rule / version).exists()


def _with_parser_of(command: str) -> type[LitCreditCLI]:
    """The CLI with the parser of one command; with all parsers if the word is not a command."""
    commands = LitCreditCLI.subcommands()
    if command not in commands:
        return LitCreditCLI

    class OneCommand(LitCreditCLI):
        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            return {command: commands[command]}

    return OneCommand
