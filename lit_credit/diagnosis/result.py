"""The result of a diagnosis: rows, figures, tables and readings, shown in a notebook or as text."""

import base64
import html
import io
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_credit.runs.history import Row
from lit_credit.runs.table import TableRow, write_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Diagnosis", "Finding"]


@dataclass(frozen=True, eq=False)
class Finding:
    """What one diagnostic found.

    Attributes:
        name: the stem of its files.
        rows: one row per checkpoint, as in a history: ``step``, ``epoch``, ``name``, ``values``.
        figures: its figures by name; the main one is ``figure``.
        tables: its own tables by name, each a list of rows; a table without a name is ``""``.
        reading: what the rows say, in a sentence or two; None if the diagnostic does not tell.
        folder: where all of this was written; None if nothing was.
    """

    name: str
    rows: list[Row]
    figures: "dict[str, Figure]" = field(default_factory=dict)
    tables: dict[str, list[TableRow]] = field(default_factory=dict)
    reading: str | None = None
    folder: Path | None = None

    @property
    def values(self) -> dict[str, float]:
        """The values of the last checkpoint, by tag."""
        return dict(self.rows[-1]["values"]) if self.rows else {}

    @property
    def table(self) -> list[TableRow]:
        """The last checkpoint in short: each quantity with its range over layers, heads or pairs.

        Columns: ``quantity``, ``n`` values, ``min``, ``median``, ``max``; of a series also
        ``first``, the median at the first checkpoint.
        """
        first = _by_quantity(self.rows[0]["values"]) if len(self.rows) > 1 else {}
        lines: list[TableRow] = []
        for quantity, values in _by_quantity(self.values).items():
            line: dict[str, str | int | float] = {"quantity": quantity, "n": len(values)}
            if first:
                line["first"] = _median(first.get(quantity, []))
            line |= {"min": _lowest(values), "median": _median(values), "max": _highest(values)}
            lines.append(line)
        return lines

    def __repr__(self) -> str:
        steps = _steps(self.rows)
        return "\n".join(
            [f"{self.name}{steps}", *([self.reading] if self.reading else []), *_text(self.table)]
        )

    def _repr_html_(self) -> str:
        parts = [f"<h4>{html.escape(self.name)}{_steps(self.rows)}</h4>"]
        if self.reading:
            parts.append(f"<p>{html.escape(self.reading)}</p>")
        parts += [_image(f) for f in self.figures.values()]
        return "".join([*parts, _html_table(self.table)])


class Diagnosis(Mapping[str, Finding]):
    """The findings of all diagnostics, by name: ``found["residual_norms"]``.

    A notebook shows readings, figures and short tables; ``print`` shows the text.

    Args:
        findings: the findings.
    """

    def __init__(self, findings: Sequence[Finding]) -> None:
        self._findings = {finding.name: finding for finding in findings}

    def __getitem__(self, name: str) -> Finding:
        if name not in self._findings:
            raise KeyError(f"{name!r}; there are {', '.join(map(repr, self._findings))}")
        return self._findings[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._findings)

    def __len__(self) -> int:
        return len(self._findings)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All values in tidy form: ``diagnostic``, ``step``, ``epoch``, ``tag``, ``value``.

        ``pandas.DataFrame(found.rows)`` makes a table of them.
        """
        return [
            {
                "diagnostic": finding.name,
                "step": row["step"],
                "epoch": row["epoch"],
                "tag": tag,
                "value": value,
            }
            for finding in self.values()
            for row in finding.rows
            for tag, value in row["values"].items()
        ]

    @property
    def figures(self) -> "dict[str, Figure]":
        """All figures: ``residual_norms``, and ``circuit_matching/pairs`` for further ones."""
        return {
            finding.name if name == "figure" else f"{finding.name}/{name}": figure
            for finding in self.values()
            for name, figure in finding.figures.items()
        }

    def to_csv(self, folder: str | Path) -> list[Path]:
        """Write ``NAME.csv`` per diagnostic: a line per value, and its own tables beside it.

        Args:
            folder: made if it is missing; older files of these names are replaced.

        Returns:
            The paths of the files.
        """
        paths = []
        for finding in self.values():
            rows: list[TableRow] = [r for r in self.rows if r["diagnostic"] == finding.name]
            named = {finding.name: rows}
            named |= {f"{finding.name}_{name or 'table'}": t for name, t in finding.tables.items()}
            for stem, lines in named.items():
                if lines:
                    paths.append(Path(folder).expanduser() / f"{stem}.csv")
                    write_table(paths[-1], lines)
        return paths

    def __repr__(self) -> str:
        return "\n\n".join(map(repr, self.values())) or "Diagnosis()"

    def _repr_html_(self) -> str:
        return "".join(finding._repr_html_() for finding in self.values())


def _by_quantity(values: Mapping[str, float]) -> dict[str, list[float]]:
    """Values by the first parts of their tags, which name the quantity."""
    found: dict[str, list[float]] = {}
    for tag, value in values.items():
        found.setdefault("/".join(tag.split("/")[:2]), []).append(value)
    return found


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _median(values: Sequence[float]) -> float:
    return statistics.median(_finite(values) or [math.nan])


def _lowest(values: Sequence[float]) -> float:
    return min(_finite(values), default=math.nan)


def _highest(values: Sequence[float]) -> float:
    return max(_finite(values), default=math.nan)


def _steps(rows: Sequence[Row]) -> str:
    if len(rows) < 2:
        return f", step {rows[0]['step']}" if rows and rows[0]["step"] else ""
    return f", {len(rows)} checkpoints, steps {rows[0]['step']} to {rows[-1]['step']}"


def _cell(value: str | int | float) -> str:
    if isinstance(value, float):
        return "n/a" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _text(table: Sequence[TableRow]) -> list[str]:
    if not table:
        return []
    cells = [list(table[0]), *([_cell(value) for value in line.values()] for line in table)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def _html_table(table: Sequence[TableRow]) -> str:
    if not table:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(v))}</td>" for v in line.values()) + "</tr>"
        for line in table
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _image(figure: "Figure") -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img style="max-width:100%" src="data:image/png;base64,{data}"/>'
