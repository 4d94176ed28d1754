"""The style of all figures: colours, axes, labels at the ends of curves."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from lit_credit.utils.colors import AMBER as AMBER
from lit_credit.utils.colors import BLUE as BLUE
from lit_credit.utils.colors import GREEN as GREEN
from lit_credit.utils.colors import GREY as GREY
from lit_credit.utils.colors import INK as INK
from lit_credit.utils.colors import ORANGE as ORANGE
from lit_credit.utils.colors import PURPLE as PURPLE
from lit_credit.utils.colors import SKY as SKY

GRID = "#E3E3E3"

TIMES = "×"  # noqa: RUF001

SMALL, NORMAL, LARGE = 11, 12, 14


class EndLabel(NamedTuple):
    """A text for the right end of a curve."""

    y: float
    text: str
    color: str


def dress(ax: Axes, title: str, ylabel: str, xlabel: str = "", *, log: bool = False) -> None:
    """Set titles and scale, add a grid, and hide the upper and right frame."""
    ax.set_title(title, loc="left", fontsize=LARGE, fontweight="bold", color=INK)
    ax.set_ylabel(ylabel, fontsize=NORMAL, color=INK)
    ax.set_xlabel(xlabel, fontsize=NORMAL, color=INK)
    ax.tick_params(labelsize=SMALL, colors=INK, which="both")
    ax.grid(True, color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if log:
        ax.set_yscale("log")


def verbatim(name: str) -> str:
    r"""A name with escaped dollar signs, which matplotlib would read as a formula.

    Example:
        >>> verbatim("x$.y$")
        'x\\$.y\\$'
    """
    return name.replace("$", r"\$")


def whole_numbers_across(ax: Axes, most: int = 6) -> None:
    """Allow only whole numbers as ticks of the x axis, for epochs and steps.

    Args:
        ax: the axes.
        most: intervals between ticks at most; narrow panels have room for fewer.
    """
    ax.xaxis.set_major_locator(MaxNLocator(nbins=most, integer=True))


def not_applicable(ax: Axes) -> None:
    """Write n/a into a panel that has nothing to show."""
    ax.set_yscale("linear")
    ax.set(xticks=[], yticks=[])
    ax.text(
        0.5, 0.5, "n/a", transform=ax.transAxes, ha="center", va="center", fontsize=22, color=GREY
    )


def drawable(values: Iterable[float], *, log: bool) -> list[float]:
    """Replace values that an axis cannot show by NaN, which is drawn as a gap."""
    return [v if math.isfinite(v) and (v > 0 or not log) else math.nan for v in values]


def last_finite(values: Sequence[float]) -> float:
    """The last finite value, for the label of a curve; at least one value must be finite."""
    return next(value for value in reversed(values) if math.isfinite(value))


def show_place(ax: Axes, place: float, values: Sequence[float]) -> None:
    """Extend the x axis to an epoch or step, even if its value is undefined."""
    ax.update_datalim([(place, last_finite(values))])


def mark_ends(ax: Axes, labels: Sequence[EndLabel], height: float) -> None:
    """Write each label beside the right end of its curve; move labels apart that would overlap.

    Args:
        ax: axes with all curves drawn.
        labels: one label per curve.
        height: approximate height of the axes in points.
    """
    ax.autoscale_view()  # otherwise matplotlib updates the limits only when it draws
    readable_ticks(ax)
    to_axes = ax.transScale + ax.transLimits
    homes = [float(to_axes.transform((0.0, label.y))[1]) for label in labels]
    places = spread(homes, gap=1.3 * SMALL / height)
    for label, home, place in zip(labels, homes, places, strict=True):
        ax.annotate(
            label.text,
            xy=(1.0, home),
            xytext=(1.04, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            fontsize=SMALL,
            fontweight="bold",
            color=label.color,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": label.color,
                "linewidth": 0.8,
                "shrinkB": 0,
                "relpos": (0, 0.5),  # the line ends at the text's left end and does not cross it
            },
        )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Move places apart as little as possible until neighbours are at least a gap apart.

    All places stay between 0 and 0.97, below the title, if there is room for all.

    Example:
        >>> [round(x, 6) for x in spread([0.5, 0.5, 0.9], gap=0.1)]
        [0.45, 0.55, 0.9]
    """
    # Join labels that touch into clusters, from below. Each cluster is spaced evenly around the
    # mean of its members' places.
    clusters: list[list[int]] = []
    for index in sorted(range(len(places)), key=lambda i: places[i]):
        cluster = [index]
        while clusters and _bottom(cluster, places, gap) < gap + _top(clusters[-1], places, gap):
            cluster = clusters.pop() + cluster
        clusters.append(cluster)
    moved = list(places)
    for cluster in clusters:
        for rank, index in enumerate(cluster):
            moved[index] = _bottom(cluster, places, gap) + rank * gap
    return moved


def _bottom(cluster: Sequence[int], places: Sequence[float], gap: float) -> float:
    extent = gap * (len(cluster) - 1)
    centred = sum(places[i] for i in cluster) / len(cluster) - extent / 2
    return max(min(centred, 0.97 - extent), 0.0)


def _top(cluster: Sequence[int], places: Sequence[float], gap: float) -> float:
    return _bottom(cluster, places, gap) + gap * (len(cluster) - 1)


def readable_ticks(ax: Axes) -> None:
    """On a logarithmic axis of less than two decades, ticks at 1, 2 and 5 in plain numbers."""
    low, high = ax.get_ylim()
    if ax.get_yscale() == "log" and high < 100 * low:
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())


def factor_text(factor: float) -> str:
    r"""A factor of growth to two digits.

    Example:
        >>> factor_text(2.14), factor_text(19832.0), factor_text(1 / 8000)
        ('×2.1', '×20,000', '÷8,000')
        >>> factor_text(4.2e7)
        '×$4\\cdot10^{7}$'
    """
    if math.isnan(factor):
        return "n/a"
    sign, size = (TIMES, factor) if factor >= 1 else ("÷", 1 / factor if factor else math.inf)
    if not math.isfinite(size):
        return f"{sign}∞"
    if size >= 1e6:
        mantissa, exponent = f"{size:.0e}".split("e")
        return rf"{sign}${mantissa}\cdot10^{{{int(exponent)}}}$"
    return f"{sign}{float(f'{size:.2g}'):,.{1 if size < 9.95 else 0}f}"
