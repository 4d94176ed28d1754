"""The table of a comparison, as CSV and as text."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lit_credit.comparison.quantities import Quantity, end_of, start_of
from lit_credit.headlines import Ends, Flag, Look
from lit_credit.runs.run_folder import Run
from lit_credit.utils.numbers import number_text

__all__ = ["Summary", "csv_bytes", "flag_texts", "summarise", "text_table"]


@dataclass(frozen=True)
class Summary:
    """The runs of one experiment and their summary; ``values`` has one number per column."""

    label: str
    runs: list[Run]
    values: dict[str, float]


class _Cell(NamedTuple):
    """A cell of the text table: head, column of its number, column of its spread or "", format."""

    head: str
    column: str
    spread: str
    form: str


class _Part(NamedTuple):
    """Columns that belong together."""

    order: float
    columns: tuple[str, ...]
    cells: tuple[_Cell, ...]


def summarise(
    groups: Mapping[str, list[Run]], quantities: Sequence[Quantity], looks: Mapping[str, Look]
) -> list[Summary]:
    """The numbers of each experiment.

    Args:
        groups: label to the runs of one experiment.
        quantities: quantities that are compared.
        looks: look of each rule, by the rule's name.
    """
    ends = {label: [end_of(runs, q) for q in quantities] for label, runs in groups.items()}
    baselines: dict[str, list[str]] = {}
    for label, runs in groups.items():
        if looks[runs[0].rule].baseline:
            baselines.setdefault(runs[0].setting, []).append(label)
    summaries = []
    for label, runs in groups.items():
        # With two baselines for the same net, neither is used.
        same = [] if looks[runs[0].rule].baseline else baselines.get(runs[0].setting, [])
        values: dict[str, float] = {}
        for index, quantity in enumerate(quantities):
            last, sd = (x.item() for x in ends[label][index])
            baseline = ends[same[0]][index].mean.item() if len(same) == 1 else math.nan
            values |= _values(quantity, Ends(start_of(runs, quantity), last, baseline), sd)
        summaries.append(Summary(label, runs, values))
    return summaries


def _values(quantity: Quantity, ends: Ends, sd: float) -> dict[str, float]:
    first, last, spread = _columns(quantity)
    values = {last: ends.last, spread: sd}
    if quantity.headline.start:
        values[first] = ends.first
    for derived in quantity.headline.derived:
        values[f"{quantity.prefix}{derived.column}"] = derived.value(ends)
        if derived.flag is not None:
            values[f"{quantity.prefix}{derived.flag.column}"] = derived.flag.raised(ends)
    return values


def _columns(quantity: Quantity) -> tuple[str, str, str]:
    """The columns of the start (which may not be shown), of the end, and of the end's spread."""
    last = f"{quantity.name}_last" if quantity.headline.start else quantity.name
    return f"{quantity.name}_first", last, f"{last}_sd"


def _parts(quantities: Sequence[Quantity]) -> list[_Part]:
    """The columns in order, without the columns of flags."""
    parts = []
    for quantity in quantities:
        headline, prefix = quantity.headline, quantity.prefix
        first, last, sd = _columns(quantity)
        head = f"{prefix}{headline.text}"
        end = _Cell(f"{head} end" if headline.start else head, last, sd, headline.form)
        start = (_Cell(f"{head} start", first, "", headline.form),) if headline.start else ()
        columns = (first, last, sd) if headline.start else (last, sd)
        parts.append(_Part(headline.order, columns, (*start, end)))
        for derived in headline.derived:
            column = f"{prefix}{derived.column}"
            cell = _Cell(f"{prefix}{derived.head or derived.column}", column, "", derived.form)
            order = headline.order if derived.order is None else derived.order
            parts.append(_Part(order, (column,), (cell,)))
    return sorted(parts, key=lambda part: part.order)


def _flags(quantities: Sequence[Quantity]) -> dict[str, Flag]:
    """The flags by column, in the order of the quantities that they belong to."""
    found = [
        (q.headline.order if d.order is None else d.order, f"{q.prefix}{d.flag.column}", d.flag)
        for q in quantities
        for d in q.headline.derived
        if d.flag is not None
    ]
    return {column: flag for _, column, flag in sorted(found, key=lambda entry: entry[0])}


def csv_bytes(summaries: Sequence[Summary], quantities: Sequence[Quantity]) -> bytes:
    """The table as CSV, with columns for every quantity; undefined values are empty."""
    columns = [column for part in _parts(quantities) for column in part.columns]
    columns += _flags(quantities)
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["rule", "n", *columns, "epochs", "seeds"])
    for s in summaries:
        cells = ["" if math.isnan(s.values[c]) else f"{s.values[c]:.8g}" for c in columns]
        epochs = min(run.last_epoch for run in s.runs)
        seeds = " ".join("" if run.seed is None else str(run.seed) for run in s.runs)
        writer.writerow([s.label, len(s.runs), *cells, epochs, seeds])
    return file.getvalue().encode()


def text_table(summaries: Sequence[Summary], quantities: Sequence[Quantity]) -> list[str]:
    """Lines of equal width; columns that are undefined for every rule are left out."""
    cells = [cell for part in _parts(quantities) for cell in part.cells]
    rows = []
    for s in summaries:
        texts = {cell.head: _text(s.values, cell) for cell in cells}
        raised = ", ".join(_raised(s, quantities)) or "-"
        rows.append({"rule": s.label, "n": str(len(s.runs)), **texts, "flags": raised})
    heads = [head for head in rows[0] if any(row[head] != "n/a" for row in rows)]
    widths = [max(len(head), *(len(row[head]) for row in rows)) for head in heads]
    lines = [heads, *([row[head] for head in heads] for row in rows)]
    return [
        "  ".join(
            cell.ljust(width) if head in ("rule", "flags") else cell.rjust(width)
            for head, cell, width in zip(heads, line, widths, strict=True)
        ).rstrip()
        for line in lines
    ]


def _text(values: Mapping[str, float], cell: _Cell) -> str:
    value = values[cell.column]
    if not cell.spread or math.isnan(value):
        return number_text(value, cell.form)
    spread = number_text(values[cell.spread], ".2g" if cell.form == ".3g" else cell.form)
    return f"{value:{cell.form}} ± {spread}"


def _raised(summary: Summary, quantities: Sequence[Quantity]) -> list[str]:
    return [f.name for column, f in _flags(quantities).items() if summary.values[column] == 1]


def flag_texts(
    summaries: Sequence[Summary], quantities: Sequence[Quantity], looks: Mapping[str, Look]
) -> list[str]:
    """The meaning of each flag that an experiment raises."""
    rules = {run.rule: None for s in summaries for run in s.runs}
    baseline = " or ".join(rule for rule in rules if looks[rule].baseline)
    return [
        f"flag {flag.name}: {flag.text.format(baseline=baseline)}"
        for column, flag in _flags(quantities).items()
        if any(s.values[column] == 1 for s in summaries)
    ]
