"""Drawing how many directions each signal of each unit uses."""

import math
from collections.abc import Sequence
from statistics import fmean

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from lit_credit.plotting._style import (
    BLUE,
    GREEN,
    GRID,
    INK,
    LARGE,
    NORMAL,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    EndLabel,
    drawable,
    dress,
    last_finite,
    mark_ends,
    not_applicable,
    show_place,
    verbatim,
    whole_numbers_across,
)
from lit_credit.plotting.layer_curves import abscissa
from lit_credit.plotting.short_names import short_names
from lit_credit.runs.history import Row
from lit_credit.runs.series import layer_tags

__all__ = ["signal_rank_figure"]

_SIGNALS = {
    "activation": ("activations", BLUE),
    "credit": ("credit", ORANGE),
    "exact": ("exact\ngradient", GREEN),
    "gradient": ("weight\ngradient", PURPLE),
    "update": ("weight\nupdate", SKY),
    "weight": ("weights", INK),
}
_CURVES = 3.2
_MOST_NAMES = 20
"""Units that are named, and whose cells have numbers."""


def signal_rank_figure(rows: Sequence[Row], section: str, names: Sequence[str]) -> Figure:
    """Draw the mean rank of each signal over epochs, and below it that of all units at the end.

    Of a single row, only the units are drawn.

    Args:
        rows: rows of a history.
        section: first part of the tags.
        names: names of the units, in the order of their tags.
    """
    height = 1.3 + 0.36 * min(max(len(names), 2), _MOST_NAMES)
    if len(rows) == 1:
        figure = Figure(figsize=(7.5, height), layout="constrained")
        _draw_cells(figure.subplots(), rows[-1], section, names)
        return figure
    figure = Figure(figsize=(7.5, _CURVES + height), layout="constrained")
    curves, cells = figure.subplots(2, height_ratios=(_CURVES, height))
    _draw_means(curves, rows, section)
    _draw_cells(cells, rows[-1], section, names)
    return figure


def _draw_means(ax: Axes, rows: Sequence[Row], section: str) -> None:
    """One curve per signal, the mean over the units that have a rank."""
    by, xlabel = abscissa(rows)
    dress(ax, "Directions that each signal uses", "effective rank,\nmean over units", xlabel)
    ax.set_yscale("log")
    ends = []
    for signal, (text, color) in _SIGNALS.items():
        tags = layer_tags(rows, f"{section}/{signal}/")
        curve = {row[by]: _mean([row["values"].get(tag, math.nan) for tag in tags]) for row in rows}
        values = drawable(curve.values(), log=True)
        if not any(math.isfinite(value) for value in values):
            continue
        ax.plot(list(curve), values, color=color, linewidth=2)
        show_place(ax, list(curve)[-1], values)
        text = text.replace("\n", " ")
        ends.append(EndLabel(last_finite(values), text, color))
    if not ends:
        not_applicable(ax)
        return
    whole_numbers_across(ax)
    ax.update_datalim([(0.0, 1.0)])  # the smallest rank that there is
    mark_ends(ax, ends, height=_CURVES * 72 * 0.8)


def _mean(values: Sequence[float]) -> float:
    """Over the units that have a rank; NaN if none has."""
    known = [value for value in values if math.isfinite(value)]
    return fmean(known) if known else math.nan


def _draw_cells(ax: Axes, row: Row, section: str, names: Sequence[str]) -> None:
    """Units downwards, signals across, the effective rank in each cell."""
    values = row["values"]
    table = np.array(
        [
            [values.get(f"{section}/{signal}/L{unit:02d}", math.nan) for signal in _SIGNALS]
            for unit in range(len(names))
        ]
    )
    title = f"Effective rank by unit, epoch {row['epoch']}"
    ax.set_title(title, loc="left", fontsize=LARGE, fontweight="bold", color=INK)
    finite = table[np.isfinite(table)]
    if not finite.size:
        not_applicable(ax)
        return
    colors = mpl.colormaps["cividis"].with_extremes(bad=GRID)
    scale = LogNorm(1.0, max(float(finite.max()), 2.0))
    image = ax.imshow(
        np.ma.masked_invalid(table), cmap=colors, norm=scale, aspect="auto", interpolation="none"
    )
    ax.set_xticks(range(len(_SIGNALS)), [text for text, _ in _SIGNALS.values()])
    few = len(names) <= _MOST_NAMES
    if few:
        ax.set_yticks(range(len(names)), [*map(verbatim, short_names(names))])
    else:
        ax.set_ylabel("unit, from the first to the last", fontsize=NORMAL, color=INK)
    ax.tick_params(labelsize=SMALL, colors=INK, length=0)
    ax.spines[:].set_visible(False)
    for (unit, signal), value in np.ndenumerate(table) if few else ():
        bright = math.isfinite(value) and scale(value) < 0.55
        text = _short(value)
        color = "white" if bright else INK
        ax.text(signal, unit, text, ha="center", va="center", fontsize=SMALL, color=color)
    if not few and (figure := ax.get_figure()) is not None:
        bar = figure.colorbar(image, ax=ax, fraction=0.04, pad=0.02)
        bar.set_label("effective rank", fontsize=SMALL, color=INK)
        bar.ax.tick_params(labelsize=SMALL - 1, colors=INK)
        bar.outline.set_visible(False)


def _short(rank: float) -> str:
    return f"{rank:.3g}" if math.isfinite(rank) else "n/a"
