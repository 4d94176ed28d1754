"""The command line: one file per command.

A module is imported only when a command needs it.
"""

import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lit_credit.cli.arguments import ArgumentsError
from lit_credit.cli.commands import COMMANDS, is_of_trainer, main_of
from lit_credit.cli.first_words import answer, check_configs
from lit_credit.cli.loading import say_loading
from lit_credit.cli.own_modules import find_own_modules
from lit_credit.cli.shipped import with_shipped
from lit_credit.utils.late_names import late_names

if TYPE_CHECKING:
    from lit_credit.cli.fit import LitCreditCLI, run

__all__ = ["CTRL_C", "LitCreditCLI", "main", "run"]

CTRL_C = 130
"""Exit code after Ctrl-C (128 + SIGINT)."""


if not TYPE_CHECKING:
    __getattr__, __dir__ = late_names(__name__, {"fit": "LitCreditCLI run"})


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: the words after ``lit-credit``; None takes those of the process.

    Returns:
        The exit code: 0 after success, 1 after an error, 2 after wrong arguments, 130 after Ctrl-C,
        143 after SIGTERM. An error before the first step is printed in one line, see
        :mod:`lit_credit.cli.boundary`.

    Raises:
        Exception: any error, unchanged, if ``LIT_CREDIT_TRACEBACK`` is set.
    """
    words = list(sys.argv[1:] if args is None else args)
    if args is None:
        find_own_modules(words)
        _end_with_the_reader(words)
    try:
        code = answer(words)
        if code is not None:
            return code
        words = with_shipped(words)
        if words[0] in COMMANDS and not is_of_trainer(words[0]):
            return main_of(words[0])(words[1:])
        check_configs(words)
        _run(["--help" if word == "--help-all" else word for word in words])
    except ArgumentsError as error:  # reported without loading torch
        print(error.line, file=sys.stderr)
        return 2
    except Exception as error:
        from lit_credit.cli.boundary import report

        return report(error)
    except (KeyboardInterrupt, SystemExit) as stop:
        return _stopped(stop, words)
    return 0


def _end_with_the_reader(words: Sequence[str]) -> None:
    """Let the process end without an error when ``| head`` has read enough of what it prints.

    Only for commands that do nothing but print: a run must not be killed in this way.
    """
    prints = not words or words[0] in ("compare", "completion")
    prints = prints or not {"-h", "--help", "--help-all", "--version"}.isdisjoint(words)
    if prints and sys.platform != "win32":  # Windows has no such signal
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def _run(words: list[str]) -> None:
    """Run a command of a Trainer."""
    with say_loading():
        # This import loads torch and Lightning.
        from lit_credit.cli.class_rules import exported_classes

        exported_classes()
    if words[0] == "diagnose":
        from lit_credit.cli import diagnose

        diagnose.main(words)
        return
    from lit_credit.cli.fit import run

    run(words)


def _stopped(stop: BaseException, words: Sequence[str]) -> int:
    """Return the exit code after a signal and print how to continue; re-raise any other exit.

    Lightning turns Ctrl-C into exit code 1, and SIGTERM into an exit without a code, which is 0.
    """
    # Only Lightning raises this exception: without Lightning there was no SIGTERM to handle.
    module = sys.modules.get("lightning.pytorch.utilities.exceptions")
    terminated = () if module is None else module.SIGTERMException

    if isinstance(stop, KeyboardInterrupt) or isinstance(stop.__context__, KeyboardInterrupt):
        name, code = "Ctrl-C", CTRL_C
    elif isinstance(stop, terminated):
        name, code = "SIGTERM", 143
    else:
        raise stop
    goes_on = " The same command goes on."
    remedies = {
        "fit": " The same command with `--ckpt_path last` goes on.",
        "diagnose": goes_on,
        "demo": goes_on,
    }
    remedy = remedies.get(words[0] if words else "", "")
    print(f"lit-credit: stopped by {name}.{remedy}", file=sys.stderr)
    return code
