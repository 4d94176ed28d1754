"""The command ``lit-credit compare RUN...``."""

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_credit.cli.arguments import ShortErrorArguments
from lit_credit.cli.loading import say_loading
from lit_credit.runs.files import check_folder
from lit_credit.utils.paths import local_path

if TYPE_CHECKING:
    from lit_credit.comparison import Comparison, compare

__all__ = ["compare", "main", "parser"]

_DESCRIPTION = """Compare runs: a table, differences to a baseline, and figures."""
_EXAMPLES = """examples:
  lit-credit compare runs/digits
  lit-credit compare runs/digits --baseline BP --out comparison
  lit-credit compare runs/digits --representations --out comparison
  lit-credit compare runs/sweep --by rule lr --metric 'val/*' --format latex > table.tex"""


def __getattr__(name: str) -> Any:
    if name == "compare":
        return import_module("lit_credit.comparison").compare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 2 if the runs cannot be compared.

    Args:
        args: the words after ``lit-credit compare``; by default the process's arguments.
    """
    options = parser().parse_args(args)
    try:
        if options.out is not None:
            check_folder(Path(local_path(options.out, "--out")), "Give another --out.")
        from lit_credit.comparison import compare  # torch and Lightning come later

        with say_loading("PyTorch, Lightning and the runs"):
            found = compare(
                options.runs,
                metric=options.metric,
                by=options.by,
                baseline=options.baseline,
                representations=options.representations,
            )
        written = [] if options.out is None else found.write(options.out)
    except (ValueError, OSError) as error:
        print(f"lit-credit compare: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    _show(found, options.format)
    if written:
        stream = sys.stdout if options.format == "text" else sys.stderr
        print(f"\nWritten: {', '.join(map(str, written))}", file=stream)
    else:
        # To stderr, so that a pipe or a file gets the table alone.
        names = ", ".join(["comparison.csv", *(f"{name}.png" for name in found.figures)])
        print(f"\nNot written: {names}. `--out DIR` writes them.", file=sys.stderr)
    return 0


def parser() -> ShortErrorArguments:
    """The parser of the command."""
    made = ShortErrorArguments(
        "lit-credit compare",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run's folder, or a folder that contains runs"
    )
    made.add_argument(
        "--metric",
        nargs="+",
        default=[],
        action="extend",
        metavar="TAG",
        help="tags to compare, such as val/accuracy or 'residual/norm/*', or names of quantities; "
        "by default what the classes of the runs declare",
    )
    made.add_argument(
        "--by",
        nargs="+",
        default=[],
        action="extend",
        metavar="KEY",
        help="keys of config.yaml; runs with equal values form a row, such as --by rule lr; by "
        "default what differs between the runs, seeds aside",
    )
    made.add_argument(
        "--baseline",
        metavar="LABEL",
        help="label of a row, or name of a rule; shows the differences to it, paired by seed",
    )
    made.add_argument(
        "--representations",
        action="store_true",
        help="also compare the representations of the layers with those of the baseline or the "
        "first row, by linear CKA; the runs need the callback Representations",
    )
    made.add_argument(
        "--out",
        metavar="DIR",
        help="folder for comparison.csv and the figures; by default nothing is written",
    )
    made.add_argument(
        "--format",
        choices=["text", "markdown", "latex", "csv"],
        default="text",
        help="format of the printed table; except for text, notes go to stderr",
    )
    return made


def _show(found: "Comparison", form: str) -> None:
    """Print the table; where it may go to a file, the notes go to stderr."""
    if form == "text":
        print(found)
        return
    texts = {"markdown": found.to_markdown, "latex": found.to_latex, "csv": found.to_csv}
    print(texts[form]().rstrip("\n"))
    for note in found.notes:
        print(note, file=sys.stderr)
