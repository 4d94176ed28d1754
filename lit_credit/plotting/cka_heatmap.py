"""Heat maps of similarities from 0 to 1, such as linear CKA."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from lit_credit.plotting._style import GRID, INK, NORMAL, SMALL, not_applicable, verbatim

__all__ = ["draw_cka"]

_MOST_NUMBERS = 8
_MOST_NAMES = 12


def draw_cka(
    ax: Axes,
    matrix: npt.NDArray[np.float64],
    columns: Sequence[str],
    rows: Sequence[str],
    *,
    bar: bool = True,
) -> None:
    """Draw similarities as colours from 0 (dark) to 1 (light), the first layer at the bottom left.

    Args:
        ax: axes of a figure.
        matrix: (rows, columns); NaN is grey. Values below 0 are drawn as 0.
        columns: names of the columns; written in part if there are many.
        rows: names of the rows.
        bar: draw the colour bar.
    """
    if not np.isfinite(matrix).any():
        not_applicable(ax)
        return
    colors = mpl.colormaps["viridis"].with_extremes(bad=GRID)
    image = ax.imshow(
        matrix, cmap=colors, vmin=0, vmax=1, origin="lower", interpolation="none", aspect="equal"
    )
    for axis, names in ((ax.xaxis, columns), (ax.yaxis, rows)):
        kept = np.unique(np.linspace(0, len(names) - 1, min(len(names), _MOST_NAMES)).round())
        texts = [verbatim(names[int(i)]) for i in kept]
        axis.set_ticks(kept, texts)
    if max(map(len, columns), default=0) > 3:
        ax.tick_params(axis="x", labelrotation=90)
    ax.tick_params(labelsize=SMALL - 1, colors=INK, length=2)
    ax.spines[:].set_visible(False)
    if max(matrix.shape) <= _MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(matrix):
            text, dark = f"{value:.2f}".replace("-0.00", "0.00"), value < 0.6
            if np.isfinite(value):
                color = "white" if dark else INK
                ax.text(column, row, text, ha="center", va="center", fontsize=SMALL, color=color)
    if bar and (figure := ax.get_figure()) is not None:
        scale = figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03)
        scale.ax.tick_params(labelsize=SMALL - 1, colors=INK)
        scale.set_label("linear CKA", fontsize=NORMAL, color=INK)
        scale.outline.set_visible(False)
