"""The findings about a net that adds, for spreadsheets."""

from math import nan

from lit_credit.runs.table import TableRow
from lit_credit.studies.addition.findings import AdderFindings

__all__ = ["adder_tables"]

_SOURCES = 5


def adder_tables(found: AdderFindings) -> dict[str, list[TableRow]]:
    """Columns with their errors and ratio, runs of carries, top sources, and forced ratios."""
    layout = found.layout
    answers = layout.names[layout.answers]
    ratio = [nan, *found.ratio.tolist(), nan]
    columns: list[TableRow] = [
        {"answer": name, "error": e, "error_no_carry": e0, "error_carry": e1, "ratio": r}
        for name, (e, e0, e1), r in zip(answers, found.errors.tolist(), ratio, strict=False)
    ]
    runs: list[TableRow] = [
        {"longest_run": run, "exact": exact} for run, exact in enumerate(found.runs.tolist())
    ]
    top = found.parts.attention.topk(min(_SOURCES, layout.inputs))
    sources: list[TableRow] = [
        {"answer": answer, "rank": rank + 1, "source": layout.names[place], "attention": weight}
        for answer, places, weights in zip(
            answers, top.indices.tolist(), top.values.tolist(), strict=True
        )
        for rank, (place, weight) in enumerate(zip(places, weights, strict=True))
    ]
    forced: list[TableRow] = [
        {"ratio": ratio, "exact": exact}
        for ratio, exact in zip(found.ratios.tolist(), found.forced.tolist(), strict=True)
    ]
    return {"columns": columns, "runs": runs, "sources": sources, "forced": forced}
