"""The table of a comparison: numbers, plain data, texts and CSV."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lit_credit.comparison.differences import BaselineDifference, difference_columns
from lit_credit.comparison.groups import Group
from lit_credit.comparison.quantities import Quantity, ends_of, spread_of, start_of
from lit_credit.comparison.texts import Table, readable_form
from lit_credit.headlines import Ends, Flag, Look
from lit_credit.runs.ended import last_place
from lit_credit.runs.run_folder import Run
from lit_credit.runs.table import cell_text
from lit_credit.utils.numbers import number_text

__all__ = [
    "Cell",
    "Summary",
    "columns_of",
    "csv_text",
    "flag_texts",
    "main_table",
    "plain_rows",
    "summarise",
]

Cell = str | int | float
"""A cell of the table as plain data."""


@dataclass(frozen=True)
class Summary:
    """The runs of one experiment and their summary; ``values`` has one number per column."""

    label: str
    runs: list[Run]
    values: dict[str, float]

    @property
    def unfinished(self) -> int:
        """Number of runs that did not end, which are in no other number."""
        return sum(run.unfinished for run in self.runs)


class _Cell(NamedTuple):
    """A cell of the text table: head, columns of its number, its spread or "", its n; format."""

    head: str
    column: str
    spread: str
    number: str
    form: str


class _Part(NamedTuple):
    """Columns that belong together."""

    order: float
    columns: tuple[str, ...]
    cells: tuple[_Cell, ...]


def summarise(
    groups: Mapping[str, Group], quantities: Sequence[Quantity], looks: Mapping[str, Look]
) -> list[Summary]:
    """The numbers of each experiment.

    Args:
        groups: groups by label.
        quantities: quantities that are compared.
        looks: look of each rule, by the rule's name.
    """
    runs = {label: group.runs for label, group in groups.items()}
    ends = {label: [ends_of(found, q) for q in quantities] for label, found in runs.items()}
    baselines: dict[str, list[str]] = {}
    for label, found in runs.items():
        if _is_baseline(found, looks):
            baselines.setdefault(found[0].setting, []).append(label)
    summaries = []
    for label, found in runs.items():
        # With two baselines for the same net, neither is used.
        same = [] if _is_baseline(found, looks) else baselines.get(found[0].setting, [])
        values: dict[str, float] = {}
        for index, quantity in enumerate(quantities):
            known = ends[label][index]
            last, sd = spread_of(known)
            baseline = spread_of(ends[same[0]][index]).mean if len(same) == 1 else math.nan
            of_all = Ends(start_of(found, quantity), last, baseline)
            values |= _values(quantity, of_all, sd, len(known))
        summaries.append(Summary(label, found, values))
    return summaries


def several_baselines(groups: Mapping[str, Group], looks: Mapping[str, Look]) -> list[str]:
    """A note on nets with several rows of a baseline, such as frozen units: none is used."""
    of_setting: dict[str, dict[bool, list[str]]] = {}
    for label, group in groups.items():
        sides = of_setting.setdefault(group.runs[0].setting, {True: [], False: []})
        sides[_is_baseline(group.runs, looks)].append(label)
    several = [
        sides[True] for sides in of_setting.values() if len(sides[True]) > 1 and sides[False]
    ]
    return [
        f"several baselines: {', '.join(labels[:3])}"
        f"{f' and {len(labels) - 3} more' if len(labels) > 3 else ''} train one net on the same "
        "data, so no row is compared with a baseline. Leave out all but one"
        for labels in several
    ]


def _is_baseline(runs: Sequence[Run], looks: Mapping[str, Look]) -> bool:
    return all(looks[run.rule].baseline for run in runs)


def _values(quantity: Quantity, ends: Ends, sd: float, n: int) -> dict[str, float]:
    first, last, spread, count = _columns(quantity)
    values = {last: ends.last, spread: sd, count: n}
    if quantity.headline.start:
        values[first] = ends.first
    for derived in quantity.headline.derived:
        values[f"{quantity.prefix}{derived.column}"] = float(derived.value(ends))
        if derived.flag is not None:
            values[f"{quantity.prefix}{derived.flag.column}"] = float(derived.flag.raised(ends))
    return values


def _columns(quantity: Quantity) -> tuple[str, str, str, str]:
    """The columns of the start (which may not be shown), the end, its spread, and its n."""
    last = f"{quantity.name}_last" if quantity.headline.start else quantity.name
    return f"{quantity.name}_first", last, f"{last}_sd", f"{last}_n"


def _parts(quantities: Sequence[Quantity]) -> list[_Part]:
    """The columns in order, without the columns of flags."""
    parts = []
    for quantity in quantities:
        headline, prefix, head = quantity.headline, quantity.prefix, quantity.text
        first, *of_end = _columns(quantity)
        last, sd, n = of_end
        end = _Cell(f"{head} end" if headline.start else head, last, sd, n, headline.form)
        start = (_Cell(f"{head} start", first, "", n, headline.form),) if headline.start else ()
        columns = (first, *of_end) if headline.start else tuple(of_end)
        parts.append(_Part(headline.order, columns, (*start, end)))
        for derived in headline.derived:
            column = f"{prefix}{derived.column}"
            cell = _Cell(f"{prefix}{derived.head or derived.column}", column, "", n, derived.form)
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


def columns_of(quantities: Sequence[Quantity]) -> list[str]:
    """The columns of numbers of the CSV, those of flags last."""
    columns = [column for part in _parts(quantities) for column in part.columns]
    return [*columns, *_flags(quantities)]


def plain_rows(
    summaries: Sequence[Summary],
    quantities: Sequence[Quantity],
    differences: Sequence[BaselineDifference] = (),
) -> list[dict[str, Cell]]:
    """The table as plain data: column to number or text, undefined numbers NaN."""
    columns = columns_of(quantities)
    compared = {column: "" for found in differences for column in difference_columns(found)}
    rows: list[dict[str, Cell]] = []
    for s in summaries:
        row: dict[str, Cell] = {"rule": s.label, "n": len(s.runs)}
        row |= {column: s.values[column] for column in columns}
        row["epochs"] = min(run.last_epoch or last_place(run.histories, "epoch") for run in s.runs)
        row["unfinished"] = s.unfinished
        row["seeds"] = " ".join("" if run.seed is None else str(run.seed) for run in s.runs)
        if differences:
            row |= {"baseline": differences[0].baseline, **compared}
        for found in differences:
            if found.label == s.label:
                row |= difference_columns(found)
        rows.append(row)
    return rows


def csv_text(rows: Sequence[Mapping[str, Cell]]) -> str:
    """Plain rows as CSV; undefined values are empty."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([cell_text(row[column]) for column in rows[0]] for row in rows)
    return file.getvalue()


def main_table(summaries: Sequence[Summary], quantities: Sequence[Quantity]) -> Table:
    """The table of texts; columns that are undefined for every group are left out."""
    cells = [cell for part in _parts(quantities) for cell in part.cells]
    rows = []
    for s in summaries:
        texts = {cell.head: _text(s, cell) for cell in cells}
        words = [f"{s.unfinished} unfinished"] if s.unfinished else []
        raised = ", ".join([*_raised(s, quantities), *words]) or "-"
        rows.append({"rule": s.label, "n": str(len(s.runs)), **texts, "flags": raised})
    heads = [head for head in rows[0] if any(row[head] != "n/a" for row in rows)]
    if all(row["flags"] == "-" for row in rows):
        heads.remove("flags")
    left = [index for index, head in enumerate(heads) if head in ("rule", "flags")]
    return Table(heads, [[row[head] for head in heads] for row in rows], left)


def _text(summary: Summary, cell: _Cell) -> str:
    """The number, with its own n if that is not the row's."""
    values, n = summary.values, int(summary.values[cell.number])
    value = values[cell.column]
    cell = cell._replace(form=readable_form(value, cell.form))
    text = number_text(value, cell.form)
    if math.isnan(value):
        return text
    if cell.spread:
        spread = number_text(values[cell.spread], ".2g" if cell.form == ".3g" else cell.form)
        text = f"{value:{cell.form}} ± {spread}"
    return text if n == len(summary.runs) else f"{text} (n={n})"


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
