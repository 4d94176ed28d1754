"""Curves of a quantity over training, one per layer."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lit_credit.plotting._style import (
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
from lit_credit.plotting.ranges import Level, draw_levels, fit_range
from lit_credit.runs.history import Row
from lit_credit.runs.series import layer_tags, series

__all__ = ["abscissa", "draw_layers", "layer_curves"]

_MOST_LABELS = 14
_HEIGHT = 4.6


def layer_curves(
    rows: Sequence[Row],
    prefix: str,
    *,
    names: Sequence[str] | None = None,
    ylabel: str,
    title: str,
    log: bool = True,
    span: float = 0.0,
    reach: tuple[float, float] | None = None,
    levels: Sequence[Level] = (),
) -> Figure:
    """Draw one curve per layer over epochs, coloured from the first layer (dark) to the last.

    Of a single row, one curve over the layers is drawn.

    If an epoch has several rows, the x axis shows optimizer steps. Values that are not finite, or
    not positive on a log axis, are gaps. The y axis covers at least a tenth of its largest
    magnitude, or a decade on a log axis, so that noise does not fill the figure.

    Args:
        rows: rows of a history.
        prefix: prefix of the tags, for example ``residual/norm/``.
        names: names for the layers, in the order of their tags; by default the rest of the tag.
        ylabel: the quantity and its unit.
        title: title of the figure.
        log: draw a logarithmic axis.
        span: smallest extent of a linear axis, for quantities of a known range such as a cosine.
        reach: the values that the axis covers at least, such as 0 and 1.
        levels: values to compare with, such as a limit; the axis reaches to all of them.

    Returns:
        The figure; it says n/a if no row has such a tag.

    Raises:
        ValueError: if the numbers of names and layers differ.

    Example:
        >>> rows = [{"step": e, "epoch": e, "name": "", "values": {"a/L00": e}} for e in (1, 2)]
        >>> figure = layer_curves(rows, "a/", ylabel="norm", title="Growth")
        >>> [float(y) for y in figure.axes[0].lines[0].get_ydata()]
        [1.0, 2.0]
    """
    figure = Figure(figsize=(7.5, _HEIGHT), layout="constrained")
    draw_layers(
        figure.subplots(),
        rows,
        prefix,
        names=names,
        ylabel=ylabel,
        title=title,
        log=log,
        span=span,
        reach=reach,
        levels=levels,
    )
    return figure


def draw_layers(
    ax: Axes,
    rows: Sequence[Row],
    prefix: str,
    *,
    names: Sequence[str] | None = None,
    ylabel: str,
    title: str,
    log: bool = True,
    span: float = 0.0,
    reach: tuple[float, float] | None = None,
    levels: Sequence[Level] = (),
    height: float = _HEIGHT,
) -> None:
    """Draw the curves of :func:`layer_curves` into given axes.

    Args:
        ax: empty axes.
        rows: rows of a history.
        prefix: prefix of the tags.
        names: names for the layers.
        ylabel: the quantity and its unit.
        title: title of the axes.
        log: draw a logarithmic axis.
        span: smallest extent of a linear axis.
        reach: the values that the axis covers at least.
        levels: values to compare with.
        height: height of the axes with its labels, in inches.
    """
    tags = layer_tags(rows, prefix)
    texts = list(names) if names and tags else [tag.removeprefix(prefix) for tag in tags]
    if len(texts) != len(tags):
        raise ValueError(
            f"`names` has {len(texts)} entries, but {len(tags)} layers have a tag that begins with "
            f"{prefix!r}: {', '.join(tags)}. Give one name a layer."
        )
    levels = [level for level in levels if drawable([level.y], log=log)[0] == level.y]
    reach = _covered(reach, levels)
    over_layers = len(rows) == 1 and len(tags) > 1
    values = [rows[0]["values"][tag] for tag in tags] if over_layers else []
    log = log and (not over_layers or _spans_a_decade(values, reach))
    by, xlabel = abscissa(rows)
    across = "layer, from the first to the last" if over_layers else xlabel
    dress(ax, title, ylabel, across, log=log)
    if over_layers:
        ends = _over_layers(ax, drawable(values, log=log), texts)
    else:
        ends = _over_training(ax, rows, dict(zip(tags, texts, strict=True)), by, log)
    if not any(np.isfinite(line.get_ydata()).any() for line in ax.lines):
        not_applicable(ax)
        return
    fit_range(ax, span=span, reach=reach)
    mark_ends(ax, [*ends, *draw_levels(ax, levels)], height=height * 72 * 0.8)


def _covered(
    reach: tuple[float, float] | None, levels: Sequence[Level]
) -> tuple[float, float] | None:
    """The smallest and the largest value that the axis covers at least."""
    values = [*(reach or ()), *(level.y for level in levels)]
    return (min(values), max(values)) if values else None


def _over_training(
    ax: Axes, rows: Sequence[Row], tags: Mapping[str, str], by: str, log: bool
) -> list[EndLabel]:
    """One curve per tag; returns the labels to write."""
    whole_numbers_across(ax)
    ends: list[EndLabel] = []
    for (tag, text), color in zip(tags.items(), _depth_colors(len(tags)), strict=True):
        curve = series(rows, tag, by)
        values = drawable(curve.values(), log=log)
        ax.plot(list(curve), values, color=color, linewidth=2, marker="o", markersize=_dot(values))
        if any(value == value for value in values):
            show_place(ax, list(curve)[-1], values)
            text = text if values[-1] == values[-1] else f"{text} n/a"
            ends.append(EndLabel(last_finite(values), verbatim(text), color))
    if ends:
        ax.set_xlim(min(0, ax.dataLim.x0), max(ax.dataLim.x1, 1))
    return [ends[i] for i in _kept(len(ends))]


def _over_layers(ax: Axes, values: Sequence[float], names: Sequence[str]) -> list[EndLabel]:
    """One measurement: the values of all layers; their names stand below the axis."""
    ax.plot(range(len(values)), values, color=_depth_colors(1)[0], linewidth=2, zorder=2)
    ax.scatter(range(len(values)), values, c=_depth_colors(len(values)), s=36, zorder=3)
    kept = _kept(len(names))
    labels = [f"{names[i]}{'' if values[i] == values[i] else ' n/a'}" for i in kept]
    ax.set_xticks(kept, [verbatim(label) for label in labels])
    return []


def _spans_a_decade(values: Sequence[float], reach: tuple[float, float] | None) -> bool:
    known = [value for value in (*values, *(reach or ())) if value > 0]
    return bool(known) and max(known) > 10 * min(known)


def _kept(count: int) -> list[int]:
    """The indices of the layers that have a label: all, or some that are evenly spread."""
    places = np.linspace(0, count - 1, min(count, _MOST_LABELS)).round()
    return [int(place) for place in np.unique(places)]


def abscissa(rows: Sequence[Row]) -> tuple[str, str]:
    """The key of a row that goes along the x axis, and its label: steps if an epoch has several."""
    epochs = [row["epoch"] for row in rows]
    repeated = len(set(epochs)) < len(epochs)
    return ("step", "optimizer steps") if repeated else ("epoch", "epochs of training")


def _depth_colors(count: int) -> list[str]:
    # The light end of the map is left out: it is invisible on white.
    return [to_hex(mpl.colormaps["viridis"](x)) for x in np.linspace(0.0, 0.8, max(count, 1))][
        :count
    ]


def _dot(values: Sequence[float]) -> float:
    """Size of markers, drawn if there are few points: a single point has no line."""
    return 4 if len(values) <= 15 else 0
