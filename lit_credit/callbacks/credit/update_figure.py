"""The figure of relative updates, over training and by group."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure

from lit_credit.plotting._style import (
    BLUE,
    GREEN,
    GREY,
    GRID,
    INK,
    LARGE,
    ORANGE,
    SMALL,
    drawable,
    dress,
    not_applicable,
    verbatim,
    whole_numbers_across,
)
from lit_credit.runs.history import Row
from lit_credit.runs.series import layer_tags

__all__ = ["update_figure"]

_HEALTHY = (1e-4, 1e-2)
"""Range of healthy relative updates, around 1e-3."""
_RANGE = (1e-6, 1.0)
_MOST_NAMES = 40
_COLORS = LinearSegmentedColormap.from_list(
    "updates", [(0, BLUE), (1 / 3, "#CFE3F2"), (1 / 2, "#FFFFFF"), (2 / 3, "#F7DCC8"), (1, ORANGE)]
).with_extremes(bad=GRID)
"""White at 1e-3; blue for weights that hardly move, orange for those that are replaced."""


def update_figure(rows: Sequence[Row], section: str, names: Sequence[str]) -> Figure:
    """Draw the relative update over training, and by group with the share of dead units.

    Above, the curve is the whole module, the band reaches from the smallest to the largest group,
    and the healthy range is shaded. Below, one cell per group and measurement.

    Args:
        rows: rows of a history of :class:`lit_credit.callbacks.UpdateRatios`.
        section: first part of the tags.
        names: names of the groups.

    Returns:
        The figure; a panel without a value says n/a.
    """
    shown = rows if len(rows) == 1 else [r for r in rows if _of(r, f"{section}/ratio/total") > 0]
    shown = shown or rows
    height = 3.0 + min(0.9 + 0.24 * len(names), 10.0)
    figure = Figure(figsize=(7.5, height), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[3.0, height - 3.0])
    by = "step" if len({row["epoch"] for row in shown}) < len(shown) else "epoch"
    _curves(above, shown, section, by)
    _map(below, shown, section, names, by)
    return figure


def _of(row: Row, tag: str) -> float:
    value = row["values"].get(tag)
    return math.nan if value is None else float(value)


def _curves(ax: Axes, rows: Sequence[Row], section: str, by: str) -> None:
    dress(ax, "Size of the last update", r"$|\Delta W|\,/\,|W|$", _across(by), log=True)
    places = [row[by] for row in rows]
    total, low, high = (
        drawable([_of(row, f"{section}/ratio/{part}") for row in rows], log=True)
        for part in ("total", "min", "max")
    )
    if all(math.isnan(value) for value in total):
        not_applicable(ax)
        return
    ax.axhspan(*_HEALTHY, color=GREEN, alpha=0.13, linewidth=0)
    ax.axhline(1e-3, color=GREEN, linewidth=1.2, linestyle=(0, (4, 3)))
    dot = "o" if len(rows) <= 15 else None
    ax.fill_between(places, low, high, color=BLUE, alpha=0.2, linewidth=0)
    ax.plot(places, total, color=BLUE, linewidth=2, marker=dot, markersize=4)
    whole_numbers_across(ax)
    if len(rows) == 1:
        ax.set_xticks(places)
    known = [value for value in (*low, *high, *_HEALTHY) if value == value]
    ax.set_ylim(min(known) / 2, max(known) * 2)
    text = "line: all weights, band: smallest to largest group, green: healthy, about 1e-3"
    ax.text(0.0, 1.0, text, transform=ax.transAxes, fontsize=SMALL - 1, color=GREY, va="bottom")
    ax.set_title(ax.get_title(loc="left"), loc="left", pad=18, fontsize=LARGE, fontweight="bold")


def _map(ax: Axes, rows: Sequence[Row], section: str, names: Sequence[str], by: str) -> None:
    dress(ax, "By group; at the end: dead units and largest |x|", "", _across(by))
    ax.grid(False)
    tags = layer_tags(rows, f"{section}/ratio/L")
    values = np.array([[_of(row, tag) for row in rows] for tag in tags])
    if not values.size:
        not_applicable(ax)
        return
    image = ax.imshow(
        np.ma.masked_invalid(np.clip(values, *_RANGE)),
        cmap=_COLORS,
        norm=LogNorm(*_RANGE),
        aspect="auto",
        interpolation="nearest",
    )
    kept = range(0, len(tags), math.ceil(len(tags) / _MOST_NAMES))
    ax.set_yticks(kept, [verbatim(names[i] if i < len(names) else tags[i]) for i in kept])
    ends = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), 6)).round().astype(int))
    ax.set_xticks(ends, [str(rows[i][by]) for i in ends])
    for index in kept:
        ax.annotate(
            _shares(rows[-1], section, tags[index].rpartition("/")[2]),
            (1.01, index),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=SMALL - 1,
            color=INK,
            annotation_clip=False,
        )
    bar = ax.figure.colorbar(image, ax=ax, location="bottom", aspect=45, pad=0.03, shrink=0.8)
    bar.set_label(r"$|\Delta W|\,/\,|W|$: white is healthy, grey is not known", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)


def _shares(row: Row, section: str, layer: str) -> str:
    """Dead and saturated shares of a group, and its largest activation, in words."""
    dead, saturated, largest = (
        _of(row, f"{section}/{quantity}/{layer}")
        for quantity in ("dead", "saturated", "activation")
    )
    words = ["dead n/a" if math.isnan(dead) else f"{dead:.0%} dead"]
    words += [] if math.isnan(saturated) else [f"{saturated:.0%} saturated"]
    return ", ".join([*words, "|x| n/a" if math.isnan(largest) else f"|x| {_short(largest)}"])


def _short(value: float) -> str:
    """Two digits, without an exponent below a million.

    Example:
        >>> _short(4.77), _short(9053.0), _short(2.3e7)
        ('4.8', '9,100', '2.3e+07')
    """
    return f"{value:.1e}" if value >= 1e6 else f"{float(f'{value:.2g}'):,g}"


def _across(by: str) -> str:
    return "optimizer steps" if by == "step" else "epochs of training"
