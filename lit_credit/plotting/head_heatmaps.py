"""Heat maps with one number per attention head and layer."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from lit_credit.plotting._style import (
    GREY,
    GRID,
    INK,
    LARGE,
    NORMAL,
    SMALL,
    not_applicable,
    verbatim,
)
from lit_credit.plotting.short_names import short_names

__all__ = ["HeadPanel", "head_heatmaps"]

Layers = Mapping[str, Sequence[float]]
"""Name of a layer to one number per head."""

_CELL = (0.62, 0.42)
"""Width and height of a number of four digits, in inches."""
_LETTER = 0.1
"""Width of a title's letter, in inches."""
_WIDEST, _LARGEST = 18.0, 40.0


class HeadPanel(NamedTuple):
    """Title and colour range of a panel.

    Attributes:
        title: the quantity and its unit.
        signed: colours from -1 to 1, as for a cosine; else from 0 to the largest value.
        at_least: the colours reach at least to this value.
    """

    title: str
    signed: bool = False
    at_least: float = 0.0


def head_heatmaps(
    maps: Mapping[HeadPanel, Layers], *, title: str, columns: Sequence[str] | None = None
) -> Figure:
    """Draw heat maps, layers downwards and heads across, with every number in its cell.

    An undefined value is a grey cell with n/a. If heads and layers need a figure larger than 40
    inches, the numbers are left out.

    Args:
        maps: for each quantity the layers in forward order, with the numbers of their heads.
        title: title of the figure.
        columns: names of the numbers in a row; None numbers the heads.

    Returns:
        The figure, one panel per quantity; a panel without layers says n/a.

    Example:
        >>> figure = head_heatmaps({HeadPanel("entropy"): {"attention": [0.5, 1.0]}}, title="")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['0.50', '1.00']
    """
    heads = max((len(row) for layers in maps.values() for row in layers.values()), default=1)
    depth = max((len(layers) for layers in maps.values()), default=1)
    names = max((len(n) for layers in maps.values() for n in short_names(layers)), default=1)
    titles = max((len(kind.title) for kind in maps), default=1)
    margin = 0.6 + 0.085 * names
    alike = len({tuple(layers) for layers in maps.values()}) == 1  # named once, on the left
    width = max(heads * _CELL[0], _LETTER * titles) + (0.4 if alike else margin)
    height = max(depth, 2) * _CELL[1] + 1.2
    across = max(1, min(len(maps), 3 if alike else 2, int(_WIDEST // width)))
    lines = max(math.ceil(len(maps) / across), 1)
    wanted = across * width + (margin if alike else 0.0), lines * height + 0.5
    size = min(wanted[0], _LARGEST), min(wanted[1], _LARGEST)
    fits = size == wanted
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(lines, across, squeeze=False).flat)
    for index, (ax, (kind, layers)) in enumerate(zip(axes, maps.items(), strict=False)):
        _draw(ax, kind, layers, columns, numbers=fits)
        if alike and index % across:
            ax.set_yticklabels([])
    for ax in axes[len(maps) :]:
        ax.set_axis_off()
    figure.suptitle(title, fontsize=LARGE + 1, fontweight="bold", color=INK)
    return figure


def _draw(
    ax: Axes, kind: HeadPanel, layers: Layers, columns: Sequence[str] | None, *, numbers: bool
) -> None:
    ax.set_title(kind.title, loc="left", fontsize=NORMAL, fontweight="bold", color=INK)
    width = max((len(row) for row in layers.values()), default=0)
    if not width:
        not_applicable(ax)
        return
    table = np.full((len(layers), width), np.nan)
    for row, values in zip(table, layers.values(), strict=True):
        row[: len(values)] = values
    image = _colored(ax, kind, table)
    if columns is None:
        ax.set_xticks(range(width))
        ax.set_xlabel("head", fontsize=SMALL, color=INK)
    else:
        ax.set_xticks(range(width), [*map(verbatim, columns)], rotation=90 if width > 1 else 0)
    ax.set_yticks(range(len(layers)), [*map(verbatim, short_names(layers))])
    ax.tick_params(labelsize=SMALL, colors=INK, length=0)
    ax.spines[:].set_visible(False)
    for y, values in enumerate(layers.values() if numbers else ()):
        for x, value in enumerate(values):
            color = _readable_on(image, value) if math.isfinite(value) else GREY
            ax.text(x, y, _short(value), ha="center", va="center", fontsize=SMALL, color=color)


def _colored(ax: Axes, kind: HeadPanel, table: np.ndarray) -> AxesImage:
    finite = table[np.isfinite(table)]
    top = max(kind.at_least, float(finite.max()) if len(finite) else 0.0) or 1.0
    low, high, name = (-1.0, 1.0, "RdBu") if kind.signed else (0.0, top, "Blues")
    colors = mpl.colormaps[name].with_extremes(bad=GRID)
    return ax.imshow(
        np.where(np.isfinite(table), table, np.nan), cmap=colors, vmin=low, vmax=high, aspect="auto"
    )


def _readable_on(image: AxesImage, value: float) -> str:
    low, high = image.get_clim()
    red, green, blue, _ = image.cmap((value - (low or 0.0)) / ((high or 1.0) - (low or 0.0)))
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def _short(value: float) -> str:
    """A number in at most five characters.

    Example:
        >>> [_short(x) for x in (0.123, -0.5, 12.34, 1234.5, float("nan"))]
        ['0.12', '-0.50', '12.3', '1e+03', 'n/a']
    """
    if math.isnan(value):
        return "n/a"
    size = abs(value)
    digits = ".2f" if size < 9.995 else ".1f" if size < 99.95 else ".0f" if size < 999.5 else ".0e"
    return format(value, digits)
