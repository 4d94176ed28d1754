"""Heat maps of matrices with positive and negative entries."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.plotting._style import GRID, INK, LARGE, NORMAL, SMALL, not_applicable, verbatim

__all__ = ["SignedMap", "draw_signed", "signed_heatmaps"]

_LARGEST = 40.0
_LETTER, _LINE = 0.085, 0.22
"""Width of a name's letter, and of a row or column with a name, in inches."""
_MOST_NAMES = 40


class SignedMap(NamedTuple):
    """A matrix with labels for its rows and columns.

    Attributes:
        values: (rows, columns); NaN is grey.
        xlabel: label of the columns.
        ylabel: label of the rows.
        columns: names of the columns, written if there are at most 40; None numbers them.
        rows: names of the rows, likewise.
        saturation: quantile of the magnitudes at which the colours saturate.
    """

    values: Tensor
    xlabel: str = ""
    ylabel: str = ""
    columns: Sequence[str] | None = None
    rows: Sequence[str] | None = None
    saturation: float = 1.0


def signed_heatmaps(maps: Mapping[str, SignedMap], *, title: str) -> Figure:
    """Draw matrices side by side, blue above zero, red below, white at zero.

    Each matrix has its own colour range: up to its largest magnitude, or to its ``saturation``.

    Args:
        maps: title of a panel to its matrix.
        title: title of the figure.

    Returns:
        The figure, a colour bar at each panel; it says n/a without maps.

    Example:
        >>> import torch
        >>> figure = signed_heatmaps({"Gram": SignedMap(torch.eye(3))}, title="")
        >>> figure.axes[0].images[0].get_clim()
        (-1.0, 1.0)
    """
    count = max(len(maps), 1)
    columns = [c for shown in maps.values() if (c := _named(shown.columns))]
    rows = max((len(_named(shown.rows)) for shown in maps.values()), default=0)
    longest = max((len(name) for names in columns for name in names), default=0)
    width = max([5.4, *(_LINE * len(names) + 1.9 for names in columns)])
    height = max(4.0, _LINE * rows + 0.6) + max(1.0, _LETTER * longest)
    size = min(width * count, _LARGEST), min(height, _LARGEST)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    figure.suptitle(title, fontsize=LARGE, fontweight="bold", color=INK)
    if not maps:
        not_applicable(axes[0])
    for ax, (name, shown) in zip(axes, maps.items(), strict=False):
        draw_signed(ax, shown)
        ax.set_title(verbatim(name), loc="left", fontsize=NORMAL, fontweight="bold", color=INK)
    return figure


def draw_signed(ax: Axes, shown: SignedMap) -> None:
    """Draw one matrix into axes of a figure, with a colour bar."""
    values = shown.values.detach().double().cpu().numpy()
    finite = np.abs(values[np.isfinite(values)])
    if not finite.size:
        not_applicable(ax)
        return
    top = float(np.quantile(finite, shown.saturation)) or float(finite.max()) or 1.0
    colors = mpl.colormaps["RdBu"].with_extremes(bad=GRID)
    image = ax.imshow(values, cmap=colors, vmin=-top, vmax=top, aspect="auto", interpolation="none")
    ax.set_xlabel(shown.xlabel, fontsize=NORMAL, color=INK)
    ax.set_ylabel(shown.ylabel, fontsize=NORMAL, color=INK)
    if columns := _named(shown.columns):
        turned = 90 if max(map(len, columns)) > 3 else 0
        ax.set_xticks(range(len(columns)), [*map(verbatim, columns)], rotation=turned)
    if rows := _named(shown.rows):
        ax.set_yticks(range(len(rows)), [*map(verbatim, rows)])
    ax.tick_params(labelsize=SMALL, colors=INK, length=2)
    ax.spines[:].set_visible(False)
    if (figure := ax.get_figure()) is not None:
        extend = "both" if finite.max() > top else "neither"
        bar = figure.colorbar(image, ax=ax, fraction=0.05, pad=0.02, extend=extend)
        bar.ax.tick_params(labelsize=SMALL - 1, colors=INK)
        bar.outline.set_visible(False)


def _named(names: Sequence[str] | None) -> Sequence[str]:
    """The names to write: all if there are at most 40, else none."""
    return names if names is not None and len(names) <= _MOST_NAMES else ()
