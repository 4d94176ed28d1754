"""Lines that say how far a sweep is."""

import time
from itertools import islice
from typing import Any

from lit_credit.cli.sweep.cell import Cell

__all__ = ["Progress"]

_QUIET_SECONDS = 2.0
"""Planning that takes no longer prints no count."""
_LINES_APART = 5.0
_LOG_LINES = 5
_SHOWN_VALUES = 5


class Progress:
    """Prints the number of planned points, then the runs that end and the time left."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._next_line = self._start + _QUIET_SECONDS
        self._runs = self._before = 0

    def planning(self, done: int, points: int) -> None:
        """Print the number of planned points now and then, once planning takes a while.

        Args:
            done: number of points that are planned.
            points: number of all points.
        """
        now = time.monotonic()
        if now >= self._next_line and done < points:
            self._next_line = now + _LINES_APART
            print(f"Planning: {done} of {points} points.", flush=True)

    def planned(self, runs: int, before: int, jobs: int) -> None:
        """Print how many runs there are; the runs start now.

        Args:
            runs: number of all runs.
            before: number of runs that were finished before.
            jobs: number of runs at a time.
        """
        seconds = time.monotonic() - self._start
        at_a_time = f", {jobs} at a time" if runs - before > 1 and jobs < runs - before else ""
        print(
            f"{runs} runs planned in {seconds:.0f} s, {before} of them finished before{at_a_time}.",
            flush=True,
        )
        self._start = time.monotonic()
        self._runs, self._before = runs, before

    def ended(self, number: int, cell: Cell, result: dict[str, Any] | None, trouble: str) -> None:
        """Print the end of a run.

        Args:
            number: how many runs have ended so far, with those of an earlier sweep.
            cell: the run.
            result: its result; None if it failed.
            trouble: what went wrong with its process, "" for nothing.
        """
        report = _failure(cell, trouble) if result is None else _success(cell, result)
        print(f"[{number}/{self._runs}{self._left(number)}] {report}", flush=True)

    def _left(self, number: int) -> str:
        """The time left, if the runs to come take as long as those of this sweep so far."""
        todo = self._runs - number
        seconds = (time.monotonic() - self._start) * todo / max(number - self._before, 1)
        return f", {_duration(seconds)} left" if todo else ""


def _duration(seconds: float) -> str:
    """A duration in its largest unit.

    Example:
        >>> [_duration(s) for s in (0.2, 89, 200, 9000)]
        ['1 s', '89 s', '3 min', '2.5 h']
    """
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _success(cell: Cell, result: dict[str, Any]) -> str:
    values = (f"{name} {value:.4g}" for name, value in result["values"].items())
    return f"{cell.name}: {result['seconds']:.1f} s, {', '.join(islice(values, _SHOWN_VALUES))}"


def _failure(cell: Cell, trouble: str) -> str:
    lines = cell.log.read_text(errors="replace").splitlines() if cell.log.exists() else []
    ends = "".join(f"\n    {line}" for line in lines[-_LOG_LINES:])
    return f"{cell.name}: FAILED, {trouble or 'no result'}. {cell.log} ends:{ends}"
