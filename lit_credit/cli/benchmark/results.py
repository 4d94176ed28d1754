"""The results of a benchmark: rows of runs, tables and figures, and their files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lit_credit.cli.benchmark.direction import Better, known_direction
from lit_credit.cli.benchmark.figure import benchmark_figure
from lit_credit.cli.benchmark.summaries import Summary, shipped_rows, summarise
from lit_credit.cli.benchmark.tables import remarks, reported, table_of
from lit_credit.cli.sweep.table import write_rows

__all__ = ["Results"]


@dataclass(frozen=True)
class Results:
    """What a benchmark has measured.

    Args:
        suite: name of the suite.
        metric: name of the metric.
        rows: one row per run of a chosen configuration.
        trials: one row per trial.
        own: whether rules of one's own ran; then the rows that ship with lit_credit stand below.
        failed: a line for each rule without a row, and for each row without some of its seeds.
        notes: further lines below the tables.
        better: whether large (``up``) or small (``down``) values of the metric are better; None
            takes what lit_credit declares for a metric of this name.

    Raises:
        ValueError: if ``better`` is None and lit_credit does not declare the metric.
    """

    suite: str
    metric: str
    rows: Sequence[Mapping[str, Any]]
    trials: Sequence[Mapping[str, Any]] = field(default_factory=list, repr=False)
    own: bool = False
    failed: Sequence[str] = ()
    notes: Sequence[str] = ()
    better: Better | None = None

    def __post_init__(self) -> None:
        if self.better is None:
            known_direction(self.metric)

    @cached_property
    def table(self) -> list[Summary]:
        """A row per task and rule; per task in the order of the mean, the best first."""
        better = self.better or known_direction(self.metric)
        found = summarise(self.rows, self.metric, better)
        if self.own:
            here = {(row.task, row.rule) for row in found}
            others = summarise(shipped_rows(self.suite), self.metric, better, shipped=True)
            found += [row for row in others if (row.task, row.rule) not in here]
        tasks = list(dict.fromkeys(row.task for row in found))
        sign = 1 if better == "down" else -1
        return sorted(
            found,
            key=lambda row: (tasks.index(row.task), math.isnan(row.mean), sign * row.mean),
        )

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks that were measured."""
        return list(dict.fromkeys(row.task for row in self.table))

    def __str__(self) -> str:
        parts = []
        for task in self.tasks:
            rows = self._rows_of(task)
            lines = table_of(rows, self.metric).text()
            parts.append("\n".join([f"{self.suite}, {task}", *lines, *remarks(rows)]))
        if lines := [*self.failed, *self.notes]:
            parts.append("\n".join(lines))
        return "\n\n".join(parts)

    def to_markdown(self) -> str:
        """Two tables per task, what rules reach and which configurations were chosen."""
        lines = []
        for task in self.tasks:
            rows = self._rows_of(task)
            lines += [f"### {self.suite}, {task}", ""]
            lines += [*table_of(rows, self.metric).markdown(), ""]
            lines += [f"{' '.join(remarks(rows))}", ""]
            lines += [*reported(rows).markdown(), ""]
        for line in (*self.failed, *self.notes):
            lines += [line, ""]
        return "\n".join(lines)

    def to_latex(self) -> str:
        """What rules reach, a ``tabular`` of booktabs per task, with remarks as comments."""
        parts = []
        for task in self.tasks:
            rows = self._rows_of(task)
            comments = [f"% {line}" for line in remarks(rows)]
            parts.append("\n".join([*table_of(rows, self.metric).latex(), *comments]))
        return "\n\n".join(parts)

    def figure(self, task: str) -> Figure:
        """The metric, the credit, the stream and the cost of each rule.

        Args:
            task: name of a task.
        """
        title = f"{self.suite}, {task}: rules tuned under one budget"
        return benchmark_figure(self._rows_of(task), self.metric, title)

    def write(self, folder: Path) -> None:
        """Write ``runs.csv``, ``trials.csv``, ``table.md``, ``table.tex`` and a figure per task.

        Args:
            folder: folder of the suite.
        """
        if self.rows:
            write_rows(folder / "runs.csv", self.rows)
        write_rows(folder / "trials.csv", self.trials)
        (folder / "table.md").write_text(self.to_markdown(), encoding="utf-8")
        (folder / "table.tex").write_text(self.to_latex(), encoding="utf-8")
        for task in self.tasks:
            self.figure(task).savefig(folder / f"{task}.png", dpi=150)

    def _rows_of(self, task: str) -> list[Summary]:
        return [row for row in self.table if row.task == task]
