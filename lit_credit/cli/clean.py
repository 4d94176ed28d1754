"""The command ``lit-credit clean RUN...``."""

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from lit_credit.cli.arguments import ShortErrorArguments
from lit_credit.runs.files import reason_of
from lit_credit.runs.leftovers import Leftovers, find_leftovers
from lit_credit.runs.lock import hold, hold_folder

__all__ = ["main", "parser"]

_DESCRIPTION = """List files that runs no longer need; delete them with --yes.

These are files that were being written when a run was killed, and lock files of processes of this
machine that have ended. --checkpoints adds the checkpoints of finished runs that resuming does not
need, such as the series of SpacedCheckpoints; `lit-credit diagnose` can then no longer measure
them. Histories, configurations, figures, last.ckpt, checkpoints that were chosen by a metric, and
the files of active runs are kept."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    That is 1 if a file could not be deleted, 2 after wrong arguments.

    Args:
        args: the words after ``lit-credit clean``; by default the process's arguments.
    """
    options = parser().parse_args(args)
    try:
        found = find_leftovers(options.runs)
    except (ValueError, OSError) as error:
        print(f"lit-credit clean: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    kinds = {
        "Files that were being written": list(found.temporary),
        "Lock files of processes that have ended": found.locks,
    }
    if options.checkpoints:
        kinds["Checkpoints of finished runs that resuming does not need"] = list(found.checkpoints)
    for title, paths in kinds.items():
        if paths:
            print(f"{title}:")
            print("\n".join(f"  {_size([path]):>9}  {path}" for path in paths))
    for folder, reason in found.left_alone.items():
        print(f"Left alone: {folder}: {reason}")
    listed = [path for paths in kinds.values() for path in paths]
    if found.checkpoints and not options.checkpoints:
        print(
            f"Not listed: {_count(list(found.checkpoints))}, checkpoints of finished runs that "
            "resuming does not need. --checkpoints adds them."
        )
    if not listed:
        print("Nothing to delete.")
        return 0
    if not options.yes:
        print(f"Nothing is deleted. --yes deletes {_count(listed)}.")
        return 0
    total, failed = _count(listed), _delete(found, options.checkpoints)
    print("\n".join([*failed, f"Deleted: {total}{' but those named above' if failed else ''}."]))
    return int(bool(failed))


def _delete(found: Leftovers, checkpoints: bool) -> list[str]:
    """Delete, and return a line about each file that stays; a run that has begun since is left."""
    failed = []
    for lock in found.locks:
        try:
            with hold(lock, str(lock)):  # the end of a hold removes the file
                pass
        except (ValueError, OSError) as error:
            failed.append(f"Not deleted: {lock}: {_reason(error)}")
    for path, run in {**found.temporary, **(found.checkpoints if checkpoints else {})}.items():
        try:
            with hold_folder(run):
                path.unlink(missing_ok=True)
        except (ValueError, OSError) as error:
            failed.append(f"Not deleted: {path}: {_reason(error)}")
    return failed


def _reason(error: Exception) -> str:
    return reason_of(error) if isinstance(error, OSError) else str(error)


def _count(paths: Sequence[Path]) -> str:
    return f"{len(paths)} file{'s' * (len(paths) != 1)}, {_size(paths)}"


def _size(paths: Sequence[Path]) -> str:
    """The size of files as text.

    Example:
        >>> _size([])
        '0 B'
    """
    size = float(sum(path.stat().st_size for path in paths if path.exists()))
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size:.0f} B"


def parser() -> ShortErrorArguments:
    """The parser of the command."""
    made = ShortErrorArguments(
        "lit-credit clean",
        description=_DESCRIPTION,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("runs", nargs="+", metavar="RUN", help="a run's folder, or a folder that contains runs")
    add("--checkpoints", action="store_true", help="also checkpoints that resuming does not need")
    add("--yes", action="store_true", help="delete; without it, nothing is deleted")
    return made
