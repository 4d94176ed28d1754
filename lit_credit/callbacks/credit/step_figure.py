"""The figure of the loss along steps, and of where steps end."""

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_credit.plotting._style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LARGE,
    NORMAL,
    ORANGE,
    SMALL,
    dress,
    not_applicable,
    whole_numbers_across,
)
from lit_credit.runs.history import Row

__all__ = ["step_figure"]

_PLACES = (0, 50, 100, 150, 200)
_MOST_CURVES = 8


def step_figure(rows: Sequence[Row], section: str) -> Figure:
    """Draw the loss along steps, the update beside a gradient step, and where updates end.

    Left, the change of the loss along the update, one curve per measurement from the first (dark)
    to the last, relative to the change by the gradient step of equal length: a good update goes
    down to -1. Right, above: change by the update over change by the gradient step; below: alpha.
    Shaded areas are healthy: an update that goes down, and one that ends before the loss rises
    above its beginning. The row before training, in which no update was seen, is left out.

    Args:
        rows: rows of a history of :class:`lit_credit.callbacks.StepQuality`.
        section: first part of the tags.

    Returns:
        The figure; a panel without a value says n/a.
    """
    rows = [row for row in rows if row["step"] > 0] or rows
    figure = Figure(figsize=(9.0, 5.4), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=[1.05, 1.0])
    by = "step" if len({row["epoch"] for row in rows}) < len(rows) else "epoch"
    _along(figure.add_subplot(grid[:, 0]), rows, section, by)
    above, below = (figure.add_subplot(grid[place, 1]) for place in (0, 1))
    _over_training(above, rows, section, "ratio", by)
    _over_training(below, rows, section, "alpha", by)
    below.set_xlabel(_across(by), fontsize=NORMAL, color=INK)
    return figure


def _of(row: Row, tag: str) -> float:
    value = row["values"].get(tag)
    return math.nan if value is None else float(value)


def _along(ax: Axes, rows: Sequence[Row], section: str, by: str) -> None:
    dress(ax, "Loss along the update", "change of the loss / that of a gradient step", "s")
    curves = []
    for row in rows:
        unit = abs(_of(row, f"{section}/change_bp"))
        values = [_of(row, f"{section}/along/{place:03d}") for place in _PLACES]
        if unit > 0 and all(map(math.isfinite, values)):
            curves.append((row[by], [value / unit for value in values]))
    if not curves:
        not_applicable(ax)
        return
    kept = np.unique(np.linspace(0, len(curves) - 1, min(len(curves), _MOST_CURVES)).round())
    shades = mpl.colormaps["viridis"](np.linspace(0.0, 0.8, len(kept)))
    for index, color in zip(kept, shades, strict=True):
        place, values = curves[int(index)]
        s = [x / 100 for x in _PLACES]
        ax.plot(s, values, color=color, linewidth=2, marker="o", markersize=4, label=str(place))
    ax.axhline(0, color=INK, linewidth=0.9)
    ax.axhline(-1, color=GREEN, linewidth=1.4, linestyle=(0, (4, 3)))
    ax.axvline(1, color=GREY, linewidth=0.9, linestyle=":")
    low, high = ax.get_ylim()
    low, high = min(low, -1.1), max(high, 0.1)
    ax.set_ylim(low, high)
    ax.set_xticks([0, 0.5, 1, 1.5, 2], ["0\nbefore", "0.5", "1\nthe update", "1.5", "2"])
    ax.axhspan(low, 0, color=GREEN, alpha=0.1, linewidth=0)
    ax.legend(title=_across(by), fontsize=SMALL, title_fontsize=SMALL, frameon=False, ncols=2)


def _over_training(ax: Axes, rows: Sequence[Row], section: str, quantity: str, by: str) -> None:
    titles = {
        "ratio": ("Update / gradient step", "ratio of changes"),
        "alpha": ("Where the update ends", r"$\alpha$"),
    }
    dress(ax, *titles[quantity])
    ax.title.set_fontsize(LARGE)
    low, high = (0.0, 1.0) if quantity == "ratio" else (-1.0, 1.0)
    lines = [("", BLUE, "probe")]
    lines += [("_train", ORANGE, "training rows")] if quantity == "alpha" else []
    places = [row[by] for row in rows]
    known: list[float] = []
    for ending, color, label in lines:
        values = [_of(row, f"{section}/{quantity}{ending}") for row in rows]
        values = [value if math.isfinite(value) else math.nan for value in values]
        if not any(value == value for value in values):
            continue
        known += [value for value in values if value == value]
        mark = "o" if len(rows) <= 15 else "."
        ax.plot(places, values, color=color, linewidth=1.6, marker=mark, markersize=4, label=label)
    if not known:
        not_applicable(ax)
        return
    ax.axhspan(low, high, color=GREEN, alpha=0.1, linewidth=0)
    ax.axhline(
        high if quantity == "ratio" else 0, color=GREEN, linewidth=1.4, linestyle=(0, (4, 3))
    )
    ax.set_ylim(*_reach(known, low, high))
    ax.set_xlim(min(0, *places), max(*places, 1))
    whole_numbers_across(ax)
    if len(ax.lines) > 2:
        ax.legend(fontsize=SMALL, frameon=False, ncols=2)


def _reach(known: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """Limits that hold the healthy range, and more of the values up to a few times as much."""
    first, last = np.quantile(known, [0.05, 0.95])
    first, last = max(min(float(first), low), 2 * low - high), min(max(float(last), high), 3 * high)
    room = 0.08 * (last - first)
    return first - room, last + room


def _across(by: str) -> str:
    return "optimizer steps" if by == "step" else "epochs of training"
