"""Ranges of axes that do not magnify noise, and levels that tell healthy from ill."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from matplotlib.axes import Axes

from lit_credit.plotting._style import GREY, ORANGE, EndLabel

__all__ = ["Level", "draw_levels", "fit_range"]

_LEAST_SHARE = 0.1
"""Smallest extent of a linear axis, as a share of the largest magnitude on it."""
_LEAST_FACTOR = 10.0
"""Smallest extent of a logarithmic axis: a decade."""
_MARGIN = 0.04


class Level(NamedTuple):
    """A value to compare curves with, drawn as a dashed line.

    Attributes:
        y: the value.
        text: its name, beside the right end of the line.
        ill: the side of the level whose values are a warning sign; it is shaded.
    """

    y: float
    text: str
    ill: Literal["", "above", "below"] = ""


def fit_range(
    ax: Axes, *, span: float = 0.0, reach: tuple[float, float] | None = None
) -> tuple[float, float]:
    """Set the limits of the y axis to the drawn data, but not so close that noise fills the axis.

    A linear axis covers at least ``span`` and a tenth of its largest magnitude, a logarithmic axis
    at least a decade.

    Args:
        ax: axes with all curves drawn.
        span: smallest extent of a linear axis.
        reach: the values that the axis covers at least; on a logarithmic axis both are positive.

    Returns:
        The limits; those that the axes had if nothing is drawn.

    Example:
        >>> from matplotlib.figure import Figure
        >>> ax = Figure().subplots()
        >>> _ = ax.plot([0, 1], [0.975, 0.976])
        >>> [round(limit, 2) for limit in fit_range(ax)]
        [0.92, 1.03]
    """
    log = ax.get_yscale() == "log"
    low, high = float(ax.dataLim.y0), float(ax.dataLim.y1)
    if not (math.isfinite(low) and math.isfinite(high)) or (log and low <= 0):
        return ax.get_ylim()
    if reach is not None:
        low, high = min(low, *reach), max(high, *reach)
    if log:
        low, high = math.log10(low), math.log10(high)
        least = math.log10(_LEAST_FACTOR)
    else:
        least = max(span, _LEAST_SHARE * max(abs(low), abs(high))) or 1.0
    missing = max(least - (high - low), 0.0)
    margin = missing / 2 + _MARGIN * (high - low + missing)
    low, high = low - margin, high + margin
    limits = (10**low, 10**high) if log else (low, high)
    ax.set_ylim(*limits)
    return limits


def draw_levels(ax: Axes, levels: Sequence[Level]) -> list[EndLabel]:
    """Draw levels into axes with their final limits, and shade the ill sides.

    Levels outside of the limits, or not finite, are left out.

    Returns:
        The labels of the levels.
    """
    low, high = ax.get_ylim()
    shown = [level for level in levels if low <= level.y <= high]
    for level in shown:
        ax.axhline(level.y, color=GREY, linestyle="--", linewidth=1.2, zorder=1)
        if level.ill:
            edge = high if level.ill == "above" else low
            ax.axhspan(level.y, edge, color=ORANGE, alpha=0.1, linewidth=0, zorder=0)
    return [EndLabel(level.y, level.text, GREY) for level in shown]
