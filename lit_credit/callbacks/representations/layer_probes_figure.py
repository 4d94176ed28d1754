"""The figure of ``LayerProbes``: what can be read off each unit, before and after training."""

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
    ORANGE,
    SMALL,
    EndLabel,
    drawable,
    dress,
    last_finite,
    mark_ends,
    not_applicable,
    verbatim,
)
from lit_credit.runs.history import Row
from lit_credit.runs.series import layer_tags

__all__ = ["layer_probes_figure"]

_HEIGHT = 4.6
_MOST_NAMES = 12
_MOST_CURVES = 12


def layer_probes_figure(rows: Sequence[Row], section: str, names: Sequence[str] = ()) -> Figure:
    """Draw the probes over the layers: the first measurement dashed, later ones up to the last.

    Lines across show chance and the accuracy of the net itself at the last measurement. A probe
    that falls from the first units to the last loses what the targets need on the way.

    Args:
        rows: rows of a history.
        section: first part of the tags.
        names: names of the units; without them their tags are shown.

    Example:
        >>> values = {"probe/accuracy/L00": 0.5, "probe/accuracy/L01": 0.75}
        >>> row = {"step": 0, "epoch": 0, "name": "layer_probes", "values": values}
        >>> [float(y) for y in layer_probes_figure([row], "probe").axes[0].lines[-1].get_ydata()]
        [0.5, 0.75]
    """
    kind = "r2" if layer_tags(rows, f"{section}/r2/") else "accuracy"
    tags = layer_tags(rows, f"{section}/{kind}/")
    figure = Figure(figsize=(7.5, _HEIGHT), layout="constrained")
    ax = figure.subplots()
    what = "accuracy (fraction correct)" if kind == "accuracy" else "$R^2$"
    dress(ax, "What a linear probe reads off each unit", what, "unit, from the first to the last")
    last = rows[-1]["values"] if rows else {}
    curves = [drawable([row["values"].get(t, math.nan) for t in tags], log=False) for row in rows]
    if not any(math.isfinite(value) for curve in curves for value in curve):
        not_applicable(ax)
        return figure
    ends = [*_draw_curves(ax, rows, curves)]
    net, chance = (last.get(f"{section}/{kind}_{of}", math.nan) for of in ("net", "chance"))
    for value, text, color in ((net, "the net itself", GREEN), (chance, "chance", ORANGE)):
        if math.isfinite(value):
            ax.axhline(value, color=color, linewidth=1.4, linestyle=(0, (1, 1.5)), zorder=1)
            ends.append(EndLabel(value, text, color))
    _frame(ax, tags, section, kind, names)
    mark_ends(ax, ends, height=_HEIGHT * 72 * 0.8)
    return figure


def _draw_curves(
    ax: Axes, rows: Sequence[Row], curves: Sequence[Sequence[float]]
) -> list[EndLabel]:
    """The first measurement dashed, the last one thick, and some between them thin."""
    some = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MOST_CURVES)).round())
    ends = []
    for index in map(int, some):
        is_first, is_last = index == 0 and len(rows) > 1, index == len(rows) - 1
        curve, place = curves[index], range(len(curves[index]))
        shade = mpl.colormaps["Blues"](0.25 + 0.45 * index / max(len(rows) - 1, 1))
        color = GREY if is_first else BLUE if is_last else shade
        style = "--" if is_first else "-"
        ax.plot(
            place,
            curve,
            color=color,
            linestyle=style,
            linewidth=2.4 if is_last else 1.8 if is_first else 1.0,
            marker="o",
            markersize=5 if is_last else 3 if is_first else 0,
            zorder=4 if is_last else 3,
        )
        if (is_first or is_last) and any(math.isfinite(value) for value in curve):
            text = f"epoch {rows[index]['epoch']}"
            text = text if rows[0]["epoch"] != rows[-1]["epoch"] else f"step {rows[index]['step']}"
            ends.append(EndLabel(last_finite(curve), f"{text}", INK if is_first else BLUE))
    return ends


def _frame(ax: Axes, tags: Sequence[str], section: str, kind: str, names: Sequence[str]) -> None:
    """Names of units across, and an axis from 0 to 1 for accuracies."""
    plain = [tag.removeprefix(f"{section}/{kind}/") for tag in tags]
    named = list(names) if len(names) == len(tags) else plain
    kept = np.unique(np.linspace(0, len(tags) - 1, min(len(tags), _MOST_NAMES)).round())
    texts = [verbatim(named[int(i)]) for i in kept]
    long = max(map(len, texts), default=0) > 5 and len(kept) > 4
    ax.set_xticks(kept, texts, rotation=40 if long else 0, ha="right" if long else "center")
    ax.tick_params(axis="x", labelsize=SMALL - 1 if long else SMALL)
    if kind == "accuracy":
        ax.set_ylim(0, 1.02)
    else:
        low = min(0.0, *(v for line in ax.lines for v in np.nan_to_num(line.get_ydata(), nan=0.0)))
        ax.set_ylim(max(low, -1.0) - 0.02, 1.02)
