"""The figure of a benchmark: rules as rows, what they reach and what it costs side by side."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_credit.cli.benchmark.results import BP, FROZEN, Results, Summary
from lit_credit.cli.benchmark.tables import flags
from lit_credit.plotting._style import BLUE, GREY, INK, ORANGE, SMALL, dress, verbatim

__all__ = ["benchmark_figure"]


def benchmark_figure(results: Results, task: str) -> Figure:
    """Draw a task: accuracy, alignment of the credit, growth of the stream, and CPU time by rule.

    Args:
        results: what a benchmark has measured.
        task: name of the task.
    """
    rows = [row for row in results.table if row.task == task][::-1]
    figure = Figure(figsize=(12, 1.6 + 0.27 * len(rows)), layout="constrained")
    wide, *narrow = figure.subplots(1, 4, sharey=True, width_ratios=[2.2, 1, 1, 1])
    _metric(wide, rows, results.metric)
    _dots(narrow[0], rows, [row.measures.get("cosine", math.nan) for row in rows])
    dress(narrow[0], "Credit", "", "cosine with the gradient")
    narrow[0].axvline(0, color=GREY, linewidth=0.8)
    _dots(narrow[1], rows, [row.measures.get("growth", math.nan) for row in rows], log=True)
    dress(narrow[1], "Stream", "", "growth of $|h_L|$")
    _dots(narrow[2], rows, [row.cpu for row in rows], log=True)
    dress(narrow[2], "Cost", "", "CPU time, ratio to BP")
    for ax in (wide, *narrow):
        ax.set_ylim(-0.6, len(rows) - 0.4)
    figure.suptitle(
        f"{results.suite}, {task}: tuned under one budget",
        fontsize=15,
        fontweight="bold",
        color=INK,
    )
    return figure


def _metric(ax: Axes, rows: Sequence[Summary], metric: str) -> None:
    dress(ax, f"{metric.capitalize()}, 95 % of the mean's spread", "", metric)
    for name, text in ((FROZEN, "frozen units"), (BP, "BP")):
        mean = next((row.mean for row in rows if row.rule == name), math.nan)
        ax.axvline(mean, color=GREY, linewidth=1.2, linestyle="--", zorder=1)
        ax.annotate(
            text,
            (mean, len(rows) - 0.5),
            color=INK,
            fontsize=SMALL - 2,
            rotation=0,
            ha="right",
            va="top",
            xytext=(-3, -1),
            textcoords="offset points",
        )
    for index, row in enumerate(rows):
        known = list(row.values.values())
        color = _color(row)
        ax.plot([min(known), max(known)], [index, index], color=color, linewidth=2, zorder=2)
        ax.scatter([row.mean], [index], color=color, s=36, zorder=3)
    ax.set_yticks(range(len(rows)), [verbatim(row.rule) for row in rows], fontsize=SMALL)


def _dots(ax: Axes, rows: Sequence[Summary], values: Sequence[float], log: bool = False) -> None:
    if log:
        ax.set_xscale("log")
    ax.scatter(values, range(len(rows)), color=[_color(row) for row in rows], s=30, zorder=3)


def _color(row: Summary) -> str:
    if row.rule in (BP, FROZEN):
        return INK
    return ORANGE if flags(row) else BLUE
