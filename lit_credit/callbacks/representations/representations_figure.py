"""The figure of ``Representations``: layers against layers, and against their first state."""

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_credit.plotting._style import (
    BLUE,
    GREY,
    INK,
    LARGE,
    SMALL,
    drawable,
    dress,
    not_applicable,
    verbatim,
)
from lit_credit.plotting.cka_heatmap import draw_cka
from lit_credit.runs.history import Row
from lit_credit.runs.series import layer_tags

__all__ = ["representations_figure"]

_MOST_CURVES = 12
_MOST_NAMES = 12


def representations_figure(
    rows: Sequence[Row],
    section: str,
    matrix: npt.NDArray[np.float64] | None,
    names: Sequence[str],
) -> Figure:
    """Draw the CKA of all units with all, and over the units that with the first measurement.

    Args:
        rows: rows of a history.
        section: first part of the tags.
        matrix: (l, l) CKA of the last measurement; None if it is not known.
        names: of the units.
    """
    figure = Figure(figsize=(9.6, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    when = f" after step {rows[-1]['step']}" if rows else ""
    title = f"Units against units{when}"
    left.set_title(title, loc="left", fontsize=LARGE, fontweight="bold", color=INK)
    if matrix is None:
        not_applicable(left)
    else:
        draw_cka(left, matrix, names, names)
    _draw_initial(right, rows, section, names)
    return figure


def _draw_initial(ax: Axes, rows: Sequence[Row], section: str, names: Sequence[str]) -> None:
    """The CKA of each unit with its first state: thin on the way, thick at the end."""
    dress(ax, "Each unit against its start", "CKA with epoch 0", "unit, from the first to the last")
    tags = layer_tags(rows, f"{section}/initial/")
    curves = [drawable([row["values"].get(t, math.nan) for t in tags], log=False) for row in rows]
    if not any(math.isfinite(value) for curve in curves for value in curve):
        not_applicable(ax)
        return
    some = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MOST_CURVES)).round())
    for index in map(int, some):
        is_last = index == len(rows) - 1
        shade = mpl.colormaps["Blues"](0.25 + 0.45 * index / max(len(rows) - 1, 1))
        epoch = rows[index]["epoch"]
        ax.plot(
            range(len(tags)),
            curves[index],
            color=BLUE if is_last else GREY if index == 0 else shade,
            linestyle="--" if index == 0 and not is_last else "-",
            linewidth=2.4 if is_last else 1.2,
            marker="o",
            markersize=5 if is_last else 0,
            zorder=4 if is_last else 3,
            label=f"epoch {epoch}" if is_last or index == 0 else None,
        )
    named = list(names) if len(names) == len(tags) else tags
    kept = np.unique(np.linspace(0, len(tags) - 1, min(len(tags), _MOST_NAMES)).round())
    texts = [verbatim(named[int(i)]) for i in kept]
    ax.set_xticks(kept, texts, rotation=90 if max(map(len, texts)) > 3 else 0)
    ax.tick_params(axis="x", labelsize=SMALL - 1)
    ax.set_ylim(-0.05, 1.05)
    ax.legend(fontsize=SMALL, frameon=False, loc="lower left")
