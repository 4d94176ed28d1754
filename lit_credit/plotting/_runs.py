"""Drawing curves of several runs as their mean and a band."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from lit_credit.functional import geometric_mean, mean_and_sd
from lit_credit.plotting._style import drawable, show_place
from lit_credit.runs.series import Curve
from lit_credit.utils.colors import AMBER, BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY

_SPARE = [AMBER, SKY, INK, BLUE, GREEN, PURPLE, ORANGE, GREY]
"""Spare colours; the colours of lit_credit's rules come last."""


def over_runs(
    ax: Axes, curves: Sequence[Curve], color: str, log: bool = False, style: str = "-"
) -> list[float]:
    """Draw the mean and the band from the smallest to the largest value.

    Returns:
        The mean, NaN where it is not drawn; an empty list if it is not drawn at all.
    """
    gathered = by_place(curves)
    places = list(gathered)
    mean = drawable((mean_of(values, log) for values in gathered.values()), log=log)
    if all(value != value for value in mean):
        return []
    # Where the value of one seed is undefined, neither mean nor band is drawn.
    band = [v if m == m else [math.nan] for v, m in zip(gathered.values(), mean, strict=True)]
    low, high = [min(v) for v in band], [max(v) for v in band]
    ax.fill_between(places, low, high, color=color, alpha=0.2, linewidth=0)
    dots = 4 if len(places) <= 15 else 0
    ax.plot(
        places,
        mean,
        color=color,
        linestyle=style,
        linewidth=2.4,
        marker="o",
        markersize=dots,
        zorder=3,
    )
    show_place(ax, places[-1], mean)
    return mean


def by_place(curves: Sequence[Curve]) -> dict[int, list[float]]:
    """For each epoch or step, the values of the runs that reached it."""
    places = sorted({place for curve in curves for place in curve})
    return {place: [curve[place] for curve in curves if place in curve] for place in places}


def mean_of(values: Sequence[float], log: bool) -> float:
    return geometric_mean(values).item() if log else mean_and_sd(values).mean.item()


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
