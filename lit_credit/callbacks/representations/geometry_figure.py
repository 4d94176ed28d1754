"""The figure of ``EmbeddingGeometry``: cos² against its bounds, and who is close to whom."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from torch import Tensor

from lit_credit.plotting._style import (
    BLUE,
    GREY,
    GRID,
    INK,
    LARGE,
    NORMAL,
    ORANGE,
    SMALL,
    TIMES,
    dress,
    not_applicable,
    verbatim,
)
from lit_credit.utils.numbers import number_text

__all__ = ["Geometry", "chained", "geometry_figure"]

_PANEL, _ACROSS = 3.6, 3


class Geometry(NamedTuple):
    """How some vectors share their dimensions.

    Attributes:
        cos2: mean squared cosine over all pairs.
        welch: the smallest cos² that is possible.
        width: number of dimensions; unrelated vectors have a cos² of 1 / width.
        cosines: (n, n) of some vectors.
        order: how the vectors of ``cosines`` are ordered.
    """

    cos2: float
    welch: float
    width: int
    cosines: Tensor
    order: str


def geometry_figure(shown: Mapping[str, Geometry], *, title: str) -> Figure:
    """Draw the mean cos² of each matrix against its bounds, and below it the cosines of all pairs.

    Args:
        shown: name of a matrix to its geometry.
        title: title of the figure.

    Returns:
        The figure; it says n/a without matrices.

    Example:
        >>> import torch
        >>> pair = Geometry(1.0, 1.0, 1, torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), "")
        >>> [text.get_text() for text in geometry_figure({"W": pair}, title="").axes[0].texts]
        ['1.00, the bound']
    """
    across = min(max(len(shown), 2), _ACROSS)
    down = -(-len(shown) // across)
    heights = [1.1 + 0.42 * max(len(shown), 1), *[_PANEL] * down]
    size = (_PANEL * across + 0.6, min(sum(heights) + 0.6, 40.0))
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=LARGE, fontweight="bold", color=INK)
    grid = figure.add_gridspec(1 + down, across, height_ratios=heights)
    top = figure.add_subplot(grid[0, :])
    if not shown:
        not_applicable(top)
        return figure
    _draw_bounds(top, shown)
    axes = [figure.add_subplot(grid[1 + i // across, i % across]) for i in range(len(shown))]
    images = [_draw_cosines(ax, *entry) for ax, entry in zip(axes, shown.items(), strict=True)]
    if drawn := [image for image in images if image is not None]:
        bar = figure.colorbar(drawn[0], ax=axes, fraction=0.03, pad=0.02, ticks=[-1, 0, 1])
        bar.set_label("cosine", fontsize=SMALL, color=INK)
        bar.ax.tick_params(labelsize=SMALL, colors=INK)
        bar.outline.set_visible(False)
    return figure


def _draw_bounds(ax: Axes, shown: Mapping[str, Geometry]) -> None:
    """A line for each matrix: a tick at its Welch bound, a diamond at 1 / d, a dot at its cos²."""
    title = "Are the vectors as spread out as possible?"
    dress(ax, title, "", "mean cos² over all pairs (1: one line)")
    for place, found in enumerate(shown.values()):
        ax.plot([found.welch, found.cos2], [place, place], color=BLUE, linewidth=3, zorder=2)
        ax.plot(found.welch, place, "|", color=INK, markersize=18, markeredgewidth=2.5, zorder=3)
        ax.plot(1 / found.width, place, "D", color=ORANGE, markersize=6, zorder=3)
        ax.plot(found.cos2, place, "o", color=BLUE, markersize=9, zorder=4)
        text, beside = _against_bound(found), max(found.cos2, 1 / found.width)
        if beside == beside:
            ax.annotate(
                text, (beside, place), (12, 0), textcoords="offset points", va="center", color=INK
            ).set_fontsize(SMALL)
    ax.set_yticks(range(len(shown)), [*map(verbatim, shown)])
    ax.set(xlim=(0, 1.04), ylim=(len(shown) - 0.5, -0.5))
    marks = (("|", INK, "Welch bound"), ("D", ORANGE, "unrelated, 1 / d"), ("o", BLUE, "measured"))
    handles = [
        Line2D([], [], linestyle="", marker=m, color=color, label=text, markersize=8, mew=1.5)
        for m, color, text in marks
    ]
    ax.legend(handles=handles, fontsize=SMALL, frameon=False, loc="center right")


def _against_bound(found: Geometry) -> str:
    """The measured value, and how far it is above its bound."""
    value = number_text(found.cos2, ".2f")
    if not found.welch > 0:  # fewer vectors than dimensions may all be orthogonal
        return f"{value}, bound 0"
    factor = found.cos2 / found.welch
    return f"{value}, " + ("the bound" if factor < 1.005 else f"{TIMES}{factor:.3g} the bound")


def _draw_cosines(ax: Axes, name: str, found: Geometry) -> AxesImage | None:
    ax.set_title(verbatim(name), loc="left", fontsize=NORMAL, fontweight="bold", color=INK)
    values = found.cosines
    if not values.isfinite().any():
        not_applicable(ax)
        return None
    colors = mpl.colormaps["RdBu"].with_extremes(bad=GRID)
    image = ax.imshow(values.double().cpu().numpy(), cmap=colors, vmin=-1, vmax=1)
    ax.set_xlabel(found.order, fontsize=SMALL, color=INK)
    ax.tick_params(labelsize=SMALL, colors=GREY, length=2)
    ax.spines[:].set_visible(False)
    return image


def chained(cosines: Tensor) -> list[int]:
    """An order in which each vector stands beside the nearest that is left, opposite ones too.

    Args:
        cosines: (n, n).

    Example:
        >>> import torch
        >>> chained(torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 1.0]]))
        [0, 2, 1]
    """
    near = cosines.abs().nan_to_num()
    order = [0] if len(near) else []
    left: Sequence[int] = range(1, len(near))
    while left:
        nearest = left[int(near[order[-1], list(left)].argmax())]
        order.append(nearest)
        left = [index for index in left if index != nearest]
    return order
