"""Choosing a configuration by validation, and the rows that report it."""

import hashlib
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_credit.cli.benchmark.search import Trial
from lit_credit.cli.benchmark.suites import Entry, Suite
from lit_credit.cli.benchmark.summaries import read_rows
from lit_credit.cli.sweep.cell import Cell
from lit_credit.comparison.known import our_quantities, with_known_callbacks
from lit_credit.comparison.quantities import METRICS
from lit_credit.runs.history_rows import read_history
from lit_credit.runs.run_folder import read_run

__all__ = [
    "Choice",
    "Place",
    "best_of_studies",
    "earlier_rows",
    "median_best",
    "run_rows",
    "slug",
    "trial_rows",
]

_DIVERGED = 10.0
"""A trial whose validation loss grows by more than this factor has diverged."""


@dataclass(frozen=True)
class Place:
    """A rule on a task: what is searched, and the cells of the search."""

    task: str
    entry: Entry
    trials: list[Trial]
    cells: list[Cell]


@dataclass(frozen=True)
class Choice:
    """A trial that was chosen, and its runs with the reported seeds."""

    place: Place
    trial: Trial
    cells: list[Cell]


def median_best(suite: Suite, place: Place) -> Trial | None:
    """The best trial of the study whose best is the median of all studies.

    Studies without a trial that has learned are the worst ones. If the median study is one of them,
    the result is None. Of an even number of studies, the worse one in the middle is taken.
    """
    bests = sorted(
        best_of_studies(suite, place).values(), key=lambda best: (best is not None, best)
    )
    median = bests[(len(bests) - 1) // 2]
    return None if median is None else place.trials[-median[1]]


def best_of_studies(
    suite: Suite, place: Place
) -> dict[int, tuple[tuple[float, float], int] | None]:
    """Study to the score and the negative index of its best trial; None if no trial has learned.

    A trial has learned if its loss and its metric are finite at its end.
    """
    ranked: dict[int, list[tuple[tuple[float, float], int]]] = {}
    for index, (trial, cell) in enumerate(zip(place.trials, place.cells, strict=True)):
        found = ranked.setdefault(trial.study, [])
        if (score := _score(suite, cell)) is not None:
            found.append((score, -index))
    return {study: max(found, default=None) for study, found in ranked.items()}


def _score(suite: Suite, cell: Cell) -> tuple[float, float] | None:
    """The metric, larger is better, then the loss, which tells trials of equal metric apart."""
    result = cell.result()
    if result is None:
        return None
    loss, metric = (_value(result, f"val/{name}") for name in ("loss", suite.metric))
    if not (math.isfinite(loss) and math.isfinite(metric)):
        return None
    last = read_history(cell.folder / "metrics.jsonl")[-1]["step"]
    if last < result["step"]:
        raise ValueError(
            f"{cell.name}: the trial ended at step {result['step']} and was last validated at step "
            f"{last}, so it cannot be chosen by its end. Let it end with an epoch: give "
            "`--trainer.max_epochs` in place of `--trainer.max_steps`, and another --out."
        )
    return (-metric if suite.better == "down" else metric), -loss


def _value(result: Mapping[str, Any], tag: str) -> float:
    value = result["values"].get(tag)
    return math.nan if value is None else float(value)


# Rows of the tables


def trial_rows(suite: Suite, place: Place) -> list[dict[str, Any]]:
    """A row per trial of a rule on a task."""
    return [
        {
            "task": place.task,
            "rule": place.entry.name,
            "study": trial.study,
            "trial": trial.number,
            **trial.columns(place.entry),
            "status": _status(cell),
            **{
                f"val/{name}": _value(cell.result() or {"values": {}}, f"val/{name}")
                for name in dict.fromkeys((suite.metric, "loss"))
            },
            **{key: (cell.result() or {}).get(key) for key in ("cpu_seconds", "peak_memory")},
        }
        for trial, cell in zip(place.trials, place.cells, strict=True)
    ]


def _status(cell: Cell) -> str:
    """How a trial ended: finished, diverged (its loss is not finite or grew much), or failed."""
    if (result := cell.result()) is None:
        return "failed"
    loss = _value(result, "val/loss")
    first = read_history(cell.folder / "metrics.jsonl")[0]["values"].get("val/loss", math.nan)
    return "finished" if loss <= _DIVERGED * first else "diverged"


def run_rows(suite: Suite, choice: Choice) -> list[dict[str, Any]]:
    """A row per finished run of a chosen configuration."""
    place, trial = choice.place, choice.trial
    statuses = [_status(cell) for cell in place.cells]
    costs = {
        key: _median(result.get(key) for cell in place.cells if (result := cell.result()))
        for key in ("cpu_seconds", "peak_memory")
    }
    return [
        {
            "task": place.task,
            "rule": place.entry.name,
            "seed": cell.seed,
            "study": trial.study,
            "trial": trial.number,
            **trial.columns(place.entry),
            "trials": len(statuses),
            "diverged": statuses.count("diverged"),
            "failed": statuses.count("failed"),
            **costs,
            **_measured(suite, cell, result),
        }
        for cell in choice.cells
        if (result := cell.result()) is not None
    ]


def earlier_rows(
    folder: Path, suite: Suite, places: Sequence[Place]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of runs, and of trials, that an earlier call has measured with other rules.

    The folder holds runs of one protocol, because BP and FrozenUnits are among the rules of every
    call and their runs refuse another. Rows of another budget, and of removed runs, are left out.

    Args:
        folder: folder of the suite.
        suite: the suite.
        places: what this call measures.
    """
    here = {(place.task, place.entry.name) for place in places}
    budget = suite.studies * suite.trials
    found = {
        name: [
            row
            for row in (read_rows(folder / name) if (folder / name).is_file() else [])
            if (row["task"], row["rule"]) not in here
            and row["task"] in suite.tasks
            and (folder / row["task"] / slug(row["rule"])).is_dir()
        ]
        for name in ("runs.csv", "trials.csv")
    }
    runs = [
        row
        for row in found["runs.csv"]
        if int(row["seed"]) in suite.seeds and int(row["trials"]) == budget
    ]
    kept = {(row["task"], row["rule"]) for row in runs}
    return runs, [row for row in found["trials.csv"] if (row["task"], row["rule"]) in kept]


def slug(rule: str) -> str:
    """The name of a rule's folder."""
    return rule.replace(" ", "_")


def _measured(suite: Suite, cell: Cell, result: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a final run, what its diagnostics declare, and the hash of its settings."""
    (config,) = cell.folder.rglob("config.yaml")
    run = with_known_callbacks(read_run(config.parent))
    lines = {
        quantity.name: quantity.line(run.histories, "step").values
        for quantity in our_quantities()
        if quantity.history != METRICS
    }
    found: dict[str, Any] = {
        "config": hashlib.sha256(run.experiment.encode()).hexdigest()[:12],
        f"val/{suite.metric}": _value(result, f"val/{suite.metric}"),
        f"test/{suite.metric}": _value(result, f"test/{suite.metric}"),
    }
    for name, values in lines.items():
        if len(values):
            found[name], found[f"{name}_first"] = float(values[-1]), float(values[0])
    return found


def _median(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else math.nan
