"""Drawing curves of several runs as their mean and a band."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from lit_credit.plotting._style import drawable, show_place
from lit_credit.runs.columns import Line
from lit_credit.runs.series import Curve, gather, line_of_curve
from lit_credit.utils.colors import AMBER, BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY

_SPARE = [AMBER, SKY, INK, BLUE, GREEN, PURPLE, ORANGE, GREY]
"""Spare colours; the colours of lit_credit's rules come last."""
MOST_COLORS = len(_SPARE)
"""Number of curves whose colours differ."""


def over_runs(
    ax: Axes, curves: Sequence[Curve], color: str, log: bool = False, style: str = "-"
) -> list[float]:
    """Draw the mean and the band from the smallest to the largest value.

    Returns:
        The mean, NaN where it is not drawn; an empty list if it is not drawn at all.
    """
    return over_lines(ax, [line_of_curve(curve) for curve in curves], color, log, style)


def over_lines(
    ax: Axes,
    lines: Sequence[Line],
    color: str,
    log: bool = False,
    style: str = "-",
) -> list[float]:
    """Draw the mean and the band of curves that are held as arrays; see :func:`over_runs`."""
    places, mean, low, high = mean_and_band(lines, log)
    if np.isnan(mean).all():
        return []
    band = ax.fill_between(places, low, high, color=color, alpha=0.2, linewidth=0)
    (line,) = ax.plot(
        places,
        mean,
        color=color,
        linestyle=style,
        linewidth=2.4,
        marker="o",
        markersize=4 if len(places) <= 15 else 0,
        zorder=3,
    )
    for artist in (band, line):  # which lie inside the axes: measuring them takes long
        artist.set_in_layout(False)
    means: list[float] = mean.tolist()
    show_place(ax, places[-1], means)
    return means


class Band(NamedTuple):
    """A mean over runs and the band around it, by epochs or steps."""

    places: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


def mean_and_band(lines: Sequence[Line], log: bool) -> Band:
    """Places, mean over the runs that reached each place, smallest and largest value.

    Mean and band are NaN where the value of one run is undefined, or an axis cannot show the mean.
    """
    places, values, present = gather(lines)
    with np.errstate(all="ignore"):
        scaled = np.where(present, np.log(values) if log else values, 0.0)
        mean = scaled.sum(0) / present.sum(0)
        mean = np.exp(mean) if log else mean
    mean = np.array(drawable(mean.tolist(), log=log))
    undefined = np.isnan(mean)
    low = np.where(present, values, np.inf).min(0, initial=np.inf)
    high = np.where(present, values, -np.inf).max(0, initial=-np.inf)
    low[undefined] = high[undefined] = np.nan
    return Band(places, mean, low, high)


def run_colors(
    labels: Sequence[str], own: Mapping[str, str | None] | None = None
) -> dict[str, str]:
    """One colour per label: its own colour, or a spare one if another label has taken that.

    Args:
        labels: labels of runs, in order.
        own: preferred colours of some labels.
    """
    colors: dict[str, str] = {}
    for label in labels:
        wanted = [(own or {}).get(label), *_SPARE]
        free = [color for color in wanted if color and color not in colors.values()]
        colors[label] = free[0] if free else _SPARE[len(colors) % len(_SPARE)]
    return colors
