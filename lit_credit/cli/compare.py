"""The command ``lit-credit compare RUN... --out DIR``."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_credit.cli.arguments import ShortErrorArguments
from lit_credit.runs.files import check_folder
from lit_credit.runs.run_folder import find_runs
from lit_credit.utils.paths import local_path

if TYPE_CHECKING:
    from lit_credit.comparison import compare

__all__ = ["compare", "main"]


def __getattr__(name: str) -> Any:
    if name == "compare":
        return import_module("lit_credit.comparison").compare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 2 if the runs cannot be compared.

    Args:
        args: the words after ``lit-credit compare``; by default the process's arguments.
    """
    parser = ShortErrorArguments("lit-credit compare", description="Compare runs by rule.")
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run's folder, or a folder that contains runs"
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="for comparison.png and comparison.csv"
    )
    options = parser.parse_args(args)
    try:
        out = local_path(options.out, "--out")
        check_folder(Path(out), "Give another --out.")
        find_runs(options.runs)  # a wrong path is refused before Lightning is loaded
        from lit_credit.comparison import compare  # torch and matplotlib with it

        text = compare(options.runs, out)
    except (ValueError, OSError) as error:
        print(f"lit-credit compare: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(text)
    print(f"\nWritten: {Path(out, 'comparison.png')}, {Path(out, 'comparison.csv')}")
    return 0
