"""The figure of a benchmark: rules as rows, what they reach and what it costs side by side."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from lit_credit.cli.benchmark.summaries import BP, FROZEN, Summary
from lit_credit.cli.benchmark.tables import flags
from lit_credit.plotting._style import BLUE, GREY, INK, ORANGE, SMALL, dress, verbatim

__all__ = ["benchmark_figure"]


def benchmark_figure(rows: Sequence[Summary], metric: str, title: str) -> Figure:
    """Draw a task: the metric, the alignment of the credit, the stream's growth, and CPU time.

    Rules are rows, the best at the top. A dot is the mean over seeds. The line beside the metric
    reaches from the smallest to the largest seed. Rules with a raised flag are orange. A metric on
    validation data, and one of which small values are better, is named so.

    Args:
        rows: the summaries of one task, the best first.
        metric: name of the metric.
        title: title of the figure.
    """
    rows = rows[::-1]
    figure = Figure(figsize=(12, 2.0 + 0.27 * len(rows)), layout="constrained")
    wide, *narrow = figure.subplots(1, 4, sharey=True, width_ratios=[2.2, 1, 1, 1])
    _draw_metric(wide, rows, metric)
    panels = [
        ("Credit", "cosine with the gradient", [_measure(row, "cosine") for row in rows], False),
        ("Stream", "growth of $|h_L|$", [_measure(row, "growth") for row in rows], True),
        ("Cost", "CPU time, ratio to BP", [row.cpu for row in rows], True),
    ]
    for ax, (head, label, values, log) in zip(narrow, panels, strict=True):
        _draw_dots(ax, rows, values, head, label, log)
    for ax in (wide, *narrow):
        ax.set_ylim(-0.6, len(rows) + 0.1)
    figure.suptitle(title, fontsize=15, fontweight="bold", color=INK)
    note = "Dot: mean over seeds. Line: smallest to largest seed. Orange: flag scale or depth."
    if not all(row.tested for row in rows):
        note += f"\n{_sentence(metric)}: validation data, by which the trials were chosen."
    figure.supxlabel(note, fontsize=SMALL, color=INK)
    return figure


def _measure(row: Summary, name: str) -> float:
    return row.measures.get(name, math.nan)


def _draw_metric(ax: Axes, rows: Sequence[Summary], metric: str) -> None:
    dress(ax, _sentence(metric), "", _axis_label(rows, metric))
    means = {name: _mean_of(rows, name) for name in (FROZEN, BP)}
    # The texts stand on the outer sides of their two lines, so that they do not overlap.
    frozen_side, bp_side = ("left", "right") if means[FROZEN] > means[BP] else ("right", "left")
    for name, text, side in ((FROZEN, "frozen units", frozen_side), (BP, "BP", bp_side)):
        mean = means[name]
        if not math.isfinite(mean):
            continue
        ax.axvline(mean, color=GREY, linewidth=1.2, linestyle="--", zorder=1)
        ax.annotate(
            text,
            (mean, len(rows) - 0.25),
            color=INK,
            fontsize=SMALL - 2,
            ha=side,
            va="center",
            xytext=(-3 if side == "right" else 3, 0),
            textcoords="offset points",
        )
    for index, row in enumerate(rows):
        known = list(row.values.values()) or [math.nan]
        color = _color(row)
        ax.plot([min(known), max(known)], [index, index], color=color, linewidth=2, zorder=2)
        ax.scatter([row.mean], [index], color=color, s=36, zorder=3)
    names = [f"{verbatim(row.rule)}{' (shipped)' if row.shipped else ''}" for row in rows]
    ax.set_yticks(range(len(rows)), names, fontsize=SMALL)


def _mean_of(rows: Sequence[Summary], rule: str) -> float:
    return next((row.mean for row in rows if row.rule == rule), math.nan)


def _sentence(metric: str) -> str:
    """The metric as the beginning of a sentence."""
    return verbatim(metric[:1].upper() + metric[1:].replace("_", " "))


def _axis_label(rows: Sequence[Summary], metric: str) -> str:
    """The metric, its data if they are not test data, and its direction if small is better."""
    label = verbatim(metric.replace("_", " "))
    if any(row.better == "down" for row in rows):
        label += " (small is better)"
    return label if all(row.tested for row in rows) else f"{label}, validation data"


def _draw_dots(
    ax: Axes, rows: Sequence[Summary], values: Sequence[float], title: str, label: str, log: bool
) -> None:
    ax.scatter(values, range(len(rows)), color=[_color(row) for row in rows], s=30, zorder=3)
    dress(ax, title, "", label)
    known = [value for value in values if value > 0]
    if log and known:
        ax.set_xscale("log")
        low, high = min(*known, 1.0), max(*known, 1.0)
        margin = max(1.3, (high / low) ** 0.05)  # the dots at the ends stay whole
        ax.set_xlim(low / margin, high * margin)
        if high < 30 * low:
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            ax.xaxis.set_minor_formatter(NullFormatter())
    ax.axvline(1.0 if log else 0.0, color=GREY, linewidth=1.0, linestyle="--", zorder=1)


def _color(row: Summary) -> str:
    if row.rule in (BP, FROZEN):
        return INK
    return ORANGE if flags(row) else BLUE
