"""The table of a benchmark as Markdown."""

import math
from collections.abc import Sequence

from lit_credit.cli.benchmark.results import Results, Summary
from lit_credit.comparison.statistics import Difference, detectable_difference
from lit_credit.functional import scale_flags

__all__ = ["flags", "markdown"]


def markdown(results: Results) -> str:
    """One table per task, each with a line on what its seeds can resolve.

    Args:
        results: what a benchmark has measured.
    """
    parts = []
    for task in dict.fromkeys(row.task for row in results.table):
        rows = [row for row in results.table if row.task == task]
        parts.append(f"### {results.suite}, {task}\n\n{_table(rows, results.metric)}")
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Summary], metric: str) -> str:
    measures = list(dict.fromkeys(name for row in rows for name in row.measures))
    heads = [
        "rule", "n", metric, "minus BP", "minus frozen", "CPU", "memory", *measures, "flags",
        "diverged", "lr", "decay", "scale", "knob",
    ]  # fmt: skip
    lines = [heads, ["---"] * len(heads)]
    lines += [_cells(row, measures) for row in rows]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{text}\n\n{_resolution(rows)}"


def _cells(row: Summary, measures: Sequence[str]) -> list[str]:
    counts = f"{row.row['diverged']} of {row.row['trials']}"
    if int(row.row["failed"]):
        counts += f", {row.row['failed']} failed"
    return [
        f"{row.rule} (brought)" if row.brought else row.rule,
        str(len(row.values)),
        f"{row.mean:.3f} ± {row.sd:.3f}",
        _difference(row.to_bp),
        _difference(row.to_frozen),
        _text(row.cpu, ".2f"),
        _text(row.memory, ".2f"),
        *(_text(row.measures.get(name, math.nan), ".3g") for name in measures),
        ", ".join(flags(row)) or "-",
        counts,
        f"{float(row.row['lr']):.2g}",
        f"{float(row.row['weight_decay']):g}",
        _text(float(row.row["credit_scale"] or math.nan), "g"),
        str(row.row["knob"] or "-"),
    ]


def flags(row: Summary) -> list[str]:
    """Flags of the published protocol: ``scale`` (growth above 50), ``depth`` (of no use)."""
    frozen = row.mean - row.to_frozen.mean
    raised = scale_flags(
        growth=row.measures.get("growth", math.nan), accuracy=row.mean, frozen_accuracy=frozen
    )
    found = {"scale": raised.scale_unstable, "depth": raised.depth_unused}
    return [name for name, value in found.items() if value == 1]


def _difference(found: Difference) -> str:
    if math.isnan(found.mean):
        return "-"
    interval = "" if math.isnan(found.low) else f" [{found.low:+.3f}, {found.high:+.3f}]"
    return f"{found.mean:+.3f}{interval}"


def _text(value: float, form: str) -> str:
    return "-" if math.isnan(value) else f"{value:{form}}"


def _resolution(rows: Sequence[Summary]) -> str:
    """The smallest difference to BP that the seeds can show, of the median rule."""
    found = sorted(
        detectable_difference(row.to_bp.sd, row.to_bp.n)
        for row in rows
        if row.to_bp.n >= 3 and row.to_bp.sd > 0
    )
    if not found:
        return "Fewer than three pairs of seeds: no interval."
    n = max(row.to_bp.n for row in rows)
    return (
        f"Intervals: 95 %, paired by seed, not corrected for the number of rows. With n = {n}, "
        f"differences to BP of {found[len(found) // 2]:.3f} are found with 80 % power (the median "
        "rule). CPU and memory: medians of the trials, ratio to BP."
    )
