"""A figure with one bar per parameter."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from lit_credit.plotting._style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    SMALL,
    dress,
    not_applicable,
    verbatim,
)

__all__ = ["parameter_bars"]


def parameter_bars(
    values: Mapping[str, float],
    *,
    title: str,
    xlabel: str,
    limits: tuple[float, float] | None = (-1.0, 1.0),
) -> Figure:
    """Horizontal bars, one per parameter, the first on top; negative bars in another colour.

    Args:
        values: name to number; NaN is written as n/a.
        title: title of the figure.
        xlabel: the quantity and its unit.
        limits: limits of the axis; the default suits a cosine, None fits the data.

    Returns:
        The figure; it says n/a if there are no values.

    Example:
        >>> figure = parameter_bars({"w": 0.5, "b": -0.1}, title="Updates", xlabel="cosine")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['0.50', '-0.10']
    """
    figure = Figure(figsize=(7.5, min(1.6 + 0.27 * len(values), 40)), layout="constrained")
    ax = figure.subplots()
    dress(ax, title, "", xlabel)
    if not values:
        not_applicable(ax)
        return figure
    numbers = np.array(list(values.values()), dtype=float)
    widths = np.nan_to_num(numbers, nan=0.0, posinf=0.0, neginf=0.0)
    places = range(len(values))
    ax.barh(places, widths, height=0.72, color=[ORANGE if w < 0 else BLUE for w in widths])
    ax.axvline(0, color=INK, linewidth=0.9)
    ax.set_yticks(places, [*map(verbatim, values)])
    ax.set_ylim(len(values) - 0.4, -0.6)
    ax.grid(False, axis="y")
    low, high = limits if limits is not None else (min(widths.min(), 0), max(widths.max(), 0))
    room = 0.12 * (high - low or 1.0)  # for the numbers at the ends of the longest bars
    ax.set_xlim(low - room * (low < 0), high + room)
    for place, (number, width) in enumerate(zip(numbers, widths, strict=True)):
        ax.annotate(
            "n/a" if np.isnan(number) else f"{number:.2f}",
            (width, place),
            xytext=(4 if width >= 0 else -4, 0),
            textcoords="offset points",
            ha="left" if width >= 0 else "right",
            va="center",
            fontsize=SMALL,
            color=GREY if np.isnan(number) else INK,
        )
    return figure
