"""The command ``lit-credit completion SHELL``: completing commands, options and files."""

import re
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib.resources import files

from lit_credit.cli.arguments import ShortErrorArguments
from lit_credit.cli.benchmark.suites import suite_names
from lit_credit.cli.commands import COMMANDS, is_of_trainer, parser_of
from lit_credit.cli.shipped import shipped_names
from lit_credit.cli.short_help import option_names

__all__ = ["main", "parser", "script"]

_SHELLS = ("bash", "zsh")
_DESCRIPTION = """Print the completion of commands, options, configurations and files.

For bash, in ~/.bashrc:  eval "$(lit-credit completion bash)"
For zsh, in ~/.zshrc:    eval "$(lit-credit completion zsh)"

The shell then completes by itself; no Python runs when TAB is pressed."""


def script(shell: str) -> str:
    """The commands that a shell reads.

    Args:
        shell: ``bash`` or ``zsh``.
    """
    text = files("lit_credit.cli").joinpath("completion.bash").read_text(encoding="utf-8")
    words = {
        "COMMANDS": " ".join([*COMMANDS, "--help", "--version"]),
        "SHELLS": " ".join(_SHELLS),
        "CONFIGS": "\n".join(name for name in shipped_names() if ".grid." not in name),
        "GRIDS": "\n".join(shipped_names(".grid.yaml")),
        "OPTIONS": "\n".join(f'        {name}) words="{w}" ;;' for name, w in _options().items()),
        "CHOICES": "\n".join(f'        {at}) words="{w}" ;;' for at, w in _choices().items()),
        "ZSH": _ZSH if shell == "zsh" else "",
    }
    for name, value in words.items():
        text = text.replace(f"@{name}@", value)
    return text


_ZSH = """
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
autoload -Uz bashcompinit && bashcompinit"""


def _options() -> dict[str, str]:
    """The options of each command."""
    of_trainer = {name: option_names(name) for name in COMMANDS if is_of_trainer(name)}
    own = {name: list(_read(name)) for name in COMMANDS if not is_of_trainer(name)}
    return {name: " ".join(names) for name, names in {**of_trainer, **own}.items()}


def _choices() -> dict[str, str]:
    """The values that an option of a command has to choose from."""
    found = {
        "fit:--on_resume": "refuse configured checkpoint",
        "fit:--test_after_fit": "true false",
        "benchmark:--suite": " ".join(suite_names()),
        "sweep:--executor": "local ray",
    }
    for name in COMMANDS:
        if not is_of_trainer(name):
            read = _read(name).items()
            found |= {f"{name}:{option}": values for option, values in read if values}
    return found


def _read(command: str) -> dict[str, str]:
    """The options in the usage of a command, each with the values that it may have."""
    usage = re.findall(r"(--[\w-]+)(?: \{([^}]+)\})?", parser_of(command).format_usage())
    return {**{option: values.replace(",", " ") for option, values in usage}, "--help": ""}


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        args: the words after ``lit-credit completion``; by default the process's arguments.
    """
    print(script(parser().parse_args(args).shell))
    return 0


def parser() -> ShortErrorArguments:
    """The parser of the command."""
    made = ShortErrorArguments(
        "lit-credit completion",
        description=_DESCRIPTION,
        formatter_class=RawDescriptionHelpFormatter,
    )
    made.add_argument("shell", choices=_SHELLS, metavar="SHELL", help="bash or zsh")
    return made
