"""The tables of a benchmark."""

import math
from collections.abc import Sequence

from lit_credit.cli.benchmark.summaries import Summary
from lit_credit.comparison.statistics import Difference, detectable_difference
from lit_credit.comparison.texts import Table
from lit_credit.functional import scale_flags

__all__ = ["flags", "reported", "resolution", "table_of"]


def table_of(rows: Sequence[Summary], metric: str) -> Table:
    """What rules reach on a task, and what it costs.

    Args:
        rows: the summaries of one task.
        metric: name of the metric.
    """
    measures = list(dict.fromkeys(name for row in rows for name in row.measures))
    costs = ["CPU", "memory", *measures]
    shown = [name.replace("_", " ") for name in costs]
    heads = ["rule", "n", metric, "minus BP", "minus frozen", *shown, "flags", "diverged"]
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
    """Raised flags: ``scale``, growth above 50; ``depth``, less than .02 above frozen units."""
    frozen = row.mean - row.to_frozen.mean
    growth = row.measures.get("growth", math.nan)
    raised = scale_flags(growth=growth, accuracy=row.mean, frozen_accuracy=frozen)
    found = {"scale": raised.scale_unstable, "depth": raised.depth_unused}
    return [name for name, value in found.items() if value == 1]


def resolution(rows: Sequence[Summary]) -> str:
    """The smallest difference to BP that the seeds can show, for the median rule of a task."""
    found = sorted(
        detectable_difference(row.to_bp.sd, row.to_bp.n)
        for row in rows
        if row.to_bp.n >= 3 and row.to_bp.sd > 0
    )
    if not found:
        return "Fewer than three pairs of seeds: there are no intervals."
    n = max(row.to_bp.n for row in rows)
    return (
        f"Intervals: 95 %, paired by seed, not corrected for the number of rows. With n = {n}, a "
        f"difference to BP of {found[len(found) // 2]:.3f} is found with 80 % power (median rule)."
    )


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
