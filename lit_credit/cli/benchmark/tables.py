"""The tables of a benchmark."""

import math
from collections.abc import Sequence

from lit_credit.cli.benchmark.summaries import Summary
from lit_credit.comparison.statistics import FEWEST, Difference, detectable_difference
from lit_credit.comparison.texts import Table
from lit_credit.functional import scale_flags

__all__ = ["flags", "remarks", "reported", "resolution", "table_of"]


def table_of(rows: Sequence[Summary], metric: str) -> Table:
    """What rules reach on a task, and what it costs.

    Args:
        rows: the summaries of one task.
        metric: name of the metric.
    """
    measures = list(dict.fromkeys(name for row in rows for name in row.measures))
    costs = ["CPU", "memory", *measures]
    shown = [name.replace("_", " ") for name in costs]
    head = metric if all(row.tested for row in rows) else f"{metric} (validation)"
    heads = ["rule", "n", head, "minus BP", "minus frozen", *shown, "flags", "diverged"]
    cells = [
        [
            f"{row.rule} (shipped)" if row.shipped else row.rule,
            str(len(row.values)),
            _text(row.mean, ".3f") if math.isnan(row.sd) else f"{row.mean:.3f} ± {row.sd:.3f}",
            _difference(row.to_bp),
            _difference(row.to_frozen),
            _text(row.cpu, ".2f"),
            _text(row.memory, ".2f"),
            *(_measure(row, name) for name in measures),
            ", ".join(flags(row)) or "-",
            _counts(row),
        ]
        for row in rows
    ]
    return Table(heads, cells, [0, len(heads) - 2])


def reported(rows: Sequence[Summary]) -> Table:
    """The configurations that were chosen on a task.

    Args:
        rows: the summaries of one task.
    """
    heads = ["rule", "lr", "weight decay", "credit scale", "knob", "study", "trial", "config"]
    cells = [
        [
            row.rule,
            f"{float(row.row['lr']):.3g}",
            f"{float(row.row['weight_decay']):g}",
            _text(float(row.row["credit_scale"] or math.nan), "g"),
            str(row.row["knob"] or "-"),
            *(str(row.row[name]) for name in ("study", "trial", "config")),
        ]
        for row in rows
    ]
    return Table(heads, cells, [0, 4, 7])


def flags(row: Summary) -> list[str]:
    """Raised flags: ``scale`` and ``depth``.

    ``scale`` is a growth above 50. ``depth`` is an accuracy less than .02 above that of frozen
    units, the published threshold. Another metric has no such threshold: there, ``depth`` is a
    mean that is not better than that of frozen units.
    """
    frozen = row.mean - row.to_frozen.mean
    growth = row.measures.get("growth", math.nan)
    raised = scale_flags(growth=growth, accuracy=row.mean, frozen_accuracy=frozen)
    gain = -row.to_frozen.mean if row.better == "down" else row.to_frozen.mean
    depth = raised.depth_unused == 1 if _is_accuracy(row) else gain <= 0
    return ["scale"] * (raised.scale_unstable == 1) + ["depth"] * depth


def _is_accuracy(row: Summary) -> bool:
    """Whether the metric is the accuracy, of any validation loader."""
    return row.metric.partition("/")[0] == "accuracy"


def remarks(rows: Sequence[Summary]) -> list[str]:
    """What a reader of a task's table must know: a line each.

    Args:
        rows: the summaries of one task.
    """
    metric = rows[0].metric
    found = [resolution(rows)]
    if not all(row.tested for row in rows):
        found.append(
            f"The {metric} is of the validation data, by which the trials were chosen: no run "
            "of this task has a test result."
        )
    if rows[0].better == "down":
        found.append(f"A small {metric} is better: a negative difference is a gain.")
    if not _is_accuracy(rows[0]) and any("depth" in flags(row) for row in rows):
        found.append(f"Flag depth: the {metric} is not better than that of frozen units.")
    return found


def resolution(rows: Sequence[Summary]) -> str:
    """The smallest difference to BP that the seeds can show, for the median rule of a task."""
    found = sorted(
        detectable_difference(row.to_bp.sd, row.to_bp.n)
        for row in rows
        if row.to_bp.n >= FEWEST and row.to_bp.sd > 0
    )
    if not found:
        return _without_intervals(rows)
    n = max(row.to_bp.n for row in rows)
    return (
        f"Intervals: 95 %, paired by seed, not corrected for the number of rows. With n = {n}, a "
        f"difference to BP of {found[len(found) // 2]:.3f} is found with 80 % power (median rule)."
    )


def _without_intervals(rows: Sequence[Summary]) -> str:
    """Why no difference to BP has an interval."""
    pairs = [row.to_bp for row in rows if row.to_bp.n]
    if not pairs:
        return "No differences to BP: there are no pairs of runs."
    if max(pair.n for pair in pairs) < FEWEST:
        return "Fewer than three pairs of seeds: there are no intervals."
    if any(math.isfinite(pair.mean) for pair in pairs if pair.n >= FEWEST):
        return "No intervals of differences to BP: they are equal for all seeds."
    return "No differences to BP: in each pair of rules some run has no finite value."


def _measure(row: Summary, name: str) -> str:
    """The mean of a diagnostic, with n if it is not defined for all seeds."""
    found = row.counts.get(name, 0)
    few = f" (n = {found})" if 0 < found < len(row.values) else ""
    return f"{_text(row.measures.get(name, math.nan), '.3g')}{few}"


def _counts(row: Summary) -> str:
    failed = f", {row.row['failed']} failed" if int(row.row["failed"]) else ""
    return f"{row.row['diverged']} of {row.row['trials']}{failed}"


def _difference(found: Difference) -> str:
    if math.isnan(found.mean):
        return "n/a"
    interval = "" if math.isnan(found.low) else f" [{found.low:+.3f}, {found.high:+.3f}]"
    return f"{found.mean:+.3f}{interval}"


def _text(value: float, form: str) -> str:
    return "n/a" if math.isnan(value) else f"{value:{form}}"
