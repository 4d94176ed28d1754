"""The help of a Trainer's commands, without building their parsers, for which Lightning is loaded.

``lit-credit fit --help-all`` prints what the parser says of every option.
"""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill

from lit_credit.cli.commands import COMMANDS

__all__ = ["HELP_ALL", "option_names", "short_help", "trainer_arguments"]

HELP_ALL = "--help-all"

_FILES = {
    "-c, --config FILE": "configuration; repeatable, a later file overrides an earlier one. A file "
    "that ships with lit_credit is found by its name, such as rules/dfa.yaml",
    "--seed_everything SEED": "seed of weights, data and feedback (42); false for none",
}
_PARTS = {
    "--model CLASS": "the rule; --model.init_args.NAME VALUE sets an argument of it",
    "--data CLASS": "the data; --data.init_args.NAME VALUE sets an argument of it",
    "--trainer.NAME VALUE": "an option of Lightning's Trainer, see below",
}
_LAST = {
    "--model.help CLASS": "list the arguments of a class, such as DFA; also --data.help, "
    "--trainer.callbacks.help",
    "--print_config": "print the whole configuration, and train nothing",
    "-h, --help": "show this help message and exit",
    HELP_ALL: "show every option, with its type and default",
}
_CHECKPOINT = {
    "--ckpt_path FILE": "checkpoint to load (none: the initial weights); `last` takes the newest "
    "one of the run"
}
_WEIGHTS = {"--init_from FILE": "file of initial weights, of any project"}
_OWN: dict[str, dict[str, str]] = {
    "fit": {
        "--ckpt_path FILE": "checkpoint to resume from; `last` takes the newest one of the run",
        "--on_resume WHICH": "if configuration and checkpoint differ: refuse (default), or "
        "continue with the values that are `configured` or those of the `checkpoint`",
        **_WEIGHTS,
        "--test_after_fit BOOL": "test the trained weights at the end (true)",
    },
    "validate": {**_CHECKPOINT, **_WEIGHTS, "--verbose BOOL": "print the results (true)"},
    "test": {**_CHECKPOINT, **_WEIGHTS, "--verbose BOOL": "print the results (true)"},
    "predict": {**_CHECKPOINT, **_WEIGHTS, "--return_predictions BOOL": "keep the outputs (true)"},
    "diagnose": {
        "--ckpt_path FILES": "a checkpoint, a folder of them, or a quoted pattern; by default all "
        "of the run whose config.yaml is given",
        "--key KEY": "key of the state_dict inside each file",
        "--out DIR": "folder for the results; by default `diagnose` in the run's folder",
    },
}
_EXAMPLES = {
    "fit": "lit-credit fit --config rules/dfa.yaml --trainer.max_epochs 20",
    "diagnose": "lit-credit diagnose --config RUN/config.yaml",
}
_EXAMPLE = "lit-credit {} --config RUN/config.yaml --ckpt_path last"


def short_help(command: str) -> str:
    """The help of a Trainer's command.

    Args:
        command: such as ``fit``.
    """
    options = {**_FILES, **_OWN[command], **_PARTS, **_LAST}
    names = fill(", ".join(trainer_arguments()), 98, initial_indent="  ", subsequent_indent="  ")
    return (
        f"usage: lit-credit {command} --config FILE [options]\n\n{COMMANDS[command].text}\n\n"
        f"options:\n{_lines(options)}\n\noptions of the Trainer, --trainer.NAME:\n{names}\n\n"
        f"example:\n  {_EXAMPLES.get(command, _EXAMPLE.format(command))}"
    )


def _lines(options: dict[str, str]) -> str:
    width = max(map(len, options)) + 2
    return "\n".join(
        fill(text, 98, initial_indent=f"  {name:{width}}", subsequent_indent=" " * (width + 2))
        for name, text in options.items()
    )


def option_names(command: str) -> list[str]:
    """The options of a Trainer's command, for the completion of a shell.

    Example:
        >>> "--trainer.max_epochs" in option_names("fit")
        True
    """
    described = [*_FILES, *_OWN[command], *_PARTS, *_LAST]
    words = [word.strip(",") for text in described for word in text.split()]
    own = [word for word in words if word.startswith("--") and not word.endswith(".NAME")]
    return [*own, "--data.help", *(f"--trainer.{name}" for name in trainer_arguments())]


@cache
def trainer_arguments() -> list[str]:
    """The arguments of Lightning's Trainer, read from its source without importing it."""
    spec = find_spec("lightning")
    if spec is None or not spec.submodule_search_locations:
        return []
    file = Path(spec.submodule_search_locations[0], "pytorch", "trainer", "trainer.py")
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == "Trainer":
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    given = (*method.args.args, *method.args.kwonlyargs)
                    return [argument.arg for argument in given if argument.arg != "self"]
    return []
