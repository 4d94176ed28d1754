"""Curves of a quantity over training, one per layer."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
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
from lit_credit.runs.history import Row
from lit_credit.runs.series import layer_tags, series

__all__ = ["layer_curves"]

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
) -> Figure:
    """Draw one curve per layer over epochs, coloured from the first layer (dark) to the last.

    Of a single row, one curve over the layers is drawn.

    If an epoch has several rows, the x axis shows optimizer steps. Values that are not finite, or
    not positive on a log axis, are gaps.

    Args:
        rows: rows of a history.
        prefix: prefix of the tags, for example ``residual/norm/``.
        names: names for the layers, in the order of their tags; by default the rest of the tag.
        ylabel: the quantity and its unit.
        title: title of the figure.
        log: draw a logarithmic axis.
        span: smallest extent of a linear axis, so that rounding is not magnified.

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
    tags = layer_tags(rows, prefix)
    texts = list(names) if names and tags else [tag.removeprefix(prefix) for tag in tags]
    if len(texts) != len(tags):
        raise ValueError(
            f"`names` has {len(texts)} entries, but {len(tags)} layers have a tag that begins with "
            f"{prefix!r}: {', '.join(tags)}. Give one name a layer."
        )
    if len(rows) == 1 and len(tags) > 1:
        return _over_layers([rows[0]["values"][tag] for tag in tags], texts, ylabel, title, log)
    by, xlabel = abscissa(rows)
    figure = Figure(figsize=(7.5, _HEIGHT), layout="constrained")
    ax = figure.subplots()
    dress(ax, title, ylabel, xlabel, log=log)
    whole_numbers_across(ax)
    ends: list[EndLabel] = []
    for tag, text, color in zip(tags, texts, _depth_colors(len(tags)), strict=True):
        curve = series(rows, tag, by)
        values = drawable(curve.values(), log=log)
        ax.plot(list(curve), values, color=color, linewidth=2, marker="o", markersize=_dot(values))
        if any(value == value for value in values):
            show_place(ax, list(curve)[-1], values)
            text = text if values[-1] == values[-1] else f"{text} n/a"
            ends.append(EndLabel(last_finite(values), verbatim(text), color))
    if not ends:
        not_applicable(ax)
        return figure
    ax.set_xlim(min(0, ax.dataLim.x0), max(ax.dataLim.x1, 1))
    if (missing := span - ax.dataLim.height) > 0 and not log:
        ax.set_ylim(ax.dataLim.y0 - missing / 2, ax.dataLim.y1 + missing / 2)
    kept = np.unique(np.linspace(0, len(ends) - 1, min(len(ends), _MOST_LABELS)).round())
    mark_ends(ax, [ends[int(i)] for i in kept], height=_HEIGHT * 72 * 0.8)
    return figure


def _over_layers(
    values: Sequence[float], names: Sequence[str], ylabel: str, title: str, log: bool
) -> Figure:
    """One measurement: the values of all layers, from the first to the last.

    The axis is logarithmic only if the values span more than a decade.
    """
    known = [value for value in values if value > 0 and np.isfinite(value)]
    log = log and bool(known) and max(known) > 10 * min(known)
    figure = Figure(figsize=(7.5, _HEIGHT), layout="constrained")
    ax = figure.subplots()
    dress(ax, title, ylabel, "layer, from the first to the last", log=log)
    shown = drawable(values, log=log)
    ax.plot(range(len(shown)), shown, color=_depth_colors(1)[0], linewidth=2, zorder=2)
    ax.scatter(range(len(shown)), shown, c=_depth_colors(len(shown)), s=36, zorder=3)
    if not any(value == value for value in shown):
        not_applicable(ax)
        return figure
    kept = np.unique(np.linspace(0, len(names) - 1, min(len(names), _MOST_LABELS)).round())
    labels = [f"{names[int(i)]}{'' if shown[int(i)] == shown[int(i)] else ' n/a'}" for i in kept]
    ax.set_xticks(kept, [verbatim(label) for label in labels])
    return figure


def abscissa(rows: Sequence[Row]) -> tuple[str, str]:
    """The key of a row that the x axis shows, and the text below the axis."""
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
