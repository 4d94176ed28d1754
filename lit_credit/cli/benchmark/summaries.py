"""The rows of a benchmark's table: a rule on a task, over seeds."""

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_credit.cli.benchmark.direction import Better
from lit_credit.comparison.quantities import spread_of
from lit_credit.comparison.statistics import Difference, paired_difference

__all__ = ["BP", "FROZEN", "Summary", "read_rows", "shipped_rows", "summarise"]

BP, FROZEN = "BP", "FrozenUnits"
_SHIPPED = Path(__file__).with_name("results")
_NAN = paired_difference({}, {})


@dataclass(frozen=True)
class Summary:
    """A row of the table: a rule on a task.

    Attributes:
        task: name of the task.
        rule: name of the rule.
        values: seed to the metric on the test data, or on the validation data if no run of the
            task was tested; NaN of a run that diverged.
        to_bp: difference to BP, paired by seed.
        to_frozen: difference to FrozenUnits, paired by seed: the depth utility.
        cpu: CPU time of a trial, ratio to BP's.
        memory: peak memory of a trial, ratio to BP's.
        measures: what the diagnostics of the suite declare, at the end of training: mean over the
            seeds whose value is defined.
        counts: number of these seeds.
        row: the configuration and the counts of trials, the same for every seed.
        metric: name of the metric.
        better: whether large (``up``) or small (``down``) values of the metric are better.
        tested: whether the values are of the test data.
        shipped: whether the row ships with lit_credit; it was measured on another machine.
    """

    task: str
    rule: str
    values: Mapping[int, float]
    to_bp: Difference
    to_frozen: Difference
    cpu: float
    memory: float
    measures: Mapping[str, float]
    counts: Mapping[str, int]
    row: Mapping[str, Any]
    metric: str
    better: Better
    tested: bool
    shipped: bool = False

    @property
    def mean(self) -> float:
        """Mean over seeds; NaN if a run diverged or no run has the metric."""
        return spread_of(list(self.values.values())).mean

    @property
    def sd(self) -> float:
        """Sample standard deviation over seeds; NaN for one, or if a run diverged."""
        return spread_of(list(self.values.values())).sd


def summarise(
    rows: Sequence[Mapping[str, Any]], metric: str, better: Better, *, shipped: bool = False
) -> list[Summary]:
    """The rows of the table.

    Args:
        rows: one row per run.
        metric: name of the metric.
        better: whether large (``up``) or small (``down``) values of the metric are better.
        shipped: whether these rows ship with lit_credit.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["rule"]), []).append(row)
    test = f"test/{metric}"
    tested = {row["task"] for row in rows if not math.isnan(_number(row.get(test)))}
    return [
        _summary(task, rule, groups, metric, better, task in tested, shipped)
        for task, rule in groups
    ]


def _summary(
    task: str,
    rule: str,
    groups: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
    metric: str,
    better: Better,
    tested: bool,
    shipped: bool,
) -> Summary:
    tag = f"{'test' if tested else 'val'}/{metric}"
    own, bp, frozen = (groups.get((task, name), []) for name in (rule, BP, FROZEN))
    values, of_bp, of_frozen = (_by_seed(found, tag) for found in (own, bp, frozen))
    measures, counts = {}, {}
    for name in (key.removesuffix("_first") for key in own[0] if key.endswith("_first")):
        known = [x for row in own if not math.isnan(x := _number(row.get(name)))]
        measures[name], counts[name] = _mean(known), len(known)
        first = _mean([_number(row.get(f"{name}_first")) for row in own])
        if name == "h":
            measures["growth"] = measures["h"] / first if first else math.nan
            counts["growth"] = counts["h"]
    return Summary(
        task,
        rule,
        values,
        _NAN if rule == BP else paired_difference(values, of_bp),
        _NAN if rule == FROZEN else paired_difference(values, of_frozen),
        _ratio(own, bp, "cpu_seconds"),
        _ratio(own, bp, "peak_memory"),
        measures,
        counts,
        own[0],
        metric,
        better,
        tested,
        shipped,
    )


def _by_seed(rows: Sequence[Mapping[str, Any]], tag: str) -> dict[int, float]:
    # A run that diverged counts: without it, the mean would be that of the seeds that went well.
    return {int(row["seed"]): _number(row.get(tag)) for row in rows}


def _ratio(own: Sequence[Mapping[str, Any]], bp: Sequence[Mapping[str, Any]], key: str) -> float:
    one, other = (_number(rows[0].get(key)) if rows else math.nan for rows in (own, bp))
    return one / other if other else math.nan


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan


def _number(value: Any) -> float:
    return math.nan if value in (None, "") else float(value)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read rows that :meth:`lit_credit.cli.benchmark.results.Results.write` has written."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def shipped_rows(suite: str) -> list[dict[str, Any]]:
    """The measured rows of a suite that ship with lit_credit; empty if there are none."""
    path = _SHIPPED / f"{suite}.csv"
    return read_rows(path) if path.is_file() else []
