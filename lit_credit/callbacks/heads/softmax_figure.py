"""The figure of ``SoftmaxJacobian``: the lateral sum, and the direction that is left without it."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_credit.plotting._style import (
    BLUE,
    GREY,
    GRID,
    INK,
    LARGE,
    NORMAL,
    ORANGE,
    SMALL,
    EndLabel,
    drawable,
    dress,
    mark_ends,
    not_applicable,
    verbatim,
)
from lit_credit.plotting.ranges import Level, draw_levels, fit_range
from lit_credit.plotting.short_names import short_names

__all__ = ["softmax_figure"]

Heads = Mapping[tuple[str, str], Mapping[str, float]]
"""``(module, head)`` to quantity to number."""

_SIZE = (9.0, 8.4)
_MOST_NAMES, _MOST_NUMBERS = 12, 32
"""Layers that are all named, and heads that are all numbered."""
_GAP = 1.0
"""Room between two layers, in widths of a head."""


class _Dots(NamedTuple):
    """One dot per head."""

    quantity: str
    label: str
    color: str
    filled: bool = True


class _Panel(NamedTuple):
    title: str
    ylabel: str
    dots: Sequence[_Dots]
    reach: tuple[float, float]
    levels: Sequence[Level] = ()
    log: bool = False


_PANELS = (
    _Panel(
        "Is the lateral sum small?",
        "energy over that\nof the whole, r_off",
        [_Dots("r_off", "", BLUE)],
        (0.0, 1.0),
        [Level(0.1, "small"), Level(1.0, "as the whole")],
    ),
    _Panel(
        "Which direction is left without it?",
        "cosine with the\nfull gradient",
        [
            _Dots("cosine_diag", "diagonal", BLUE),
            _Dots("cosine_ste", "straight-through", ORANGE, filled=False),
        ],
        (0.0, 1.0),
        [Level(1.0, "all of it"), Level(0.0, "unrelated")],
    ),
    _Panel(
        "How many keys does a query attend to?",
        "exp of the entropy",
        [_Dots("effective_keys", "", BLUE)],
        (1.0, 10.0),
        [Level(1.0, "one key")],
        log=True,
    ),
)


def softmax_figure(heads: Heads, *, title: str) -> Figure:
    """Draw a dot per head, layer by layer: lateral energy, cosine without it, keys.

    Args:
        heads: ``(module, head)`` to quantity to number, layers in forward order.
        title: title of the figure.

    Returns:
        The figure, three panels above each other with one axis of heads. A head without a number
        has a grey n/a; a panel without any number says n/a.

    Example:
        >>> figure = softmax_figure({("attention", "H00"): {"r_off": 0.5}}, title="")
        >>> figure.axes[0].collections[0].get_offsets().data.tolist()
        [[0.0, 0.5]]
    """
    figure = Figure(figsize=_SIZE, layout="constrained")
    figure.suptitle(title, fontsize=LARGE + 1, fontweight="bold", color=INK)
    places = _places(heads)
    axes = figure.subplots(len(_PANELS), 1)
    drawn = [_draw(ax, panel, heads, places) for ax, panel in zip(axes, _PANELS, strict=True)]
    for ax, has_dots in zip(axes, drawn, strict=True):
        if has_dots:
            _name_layers(ax, places, names=ax is axes[-1] or not drawn[-1])
        else:
            not_applicable(ax)
    return figure


def _places(heads: Heads) -> dict[tuple[str, str], float]:
    """The place of every head on the x axis: heads side by side, and a gap between layers."""
    places: dict[tuple[str, str], float] = {}
    place, before = -1.0, next(iter(heads), ("", ""))[0]
    for label, head in heads:
        place += 1.0 + _GAP * (label != before)
        places[label, head], before = place, label
    return places


def _draw(ax: Axes, panel: _Panel, heads: Heads, places: Mapping[tuple[str, str], float]) -> bool:
    """Draw the dots of all heads; returns whether there is any."""
    dress(ax, panel.title, panel.ylabel, log=panel.log)
    ax.grid(False, axis="x")
    ends: list[EndLabel] = []
    drawn = False
    for dots in panel.dots:
        numbers = [head.get(dots.quantity, math.nan) for head in heads.values()]
        values = drawable(numbers, log=panel.log)
        face = dots.color if dots.filled else "white"
        ax.scatter(list(places.values()), values, s=46, c=face, edgecolors=dots.color, zorder=3)
        known = [value for value in values if value == value]
        drawn |= bool(known)
        if known and dots.label:
            ends.append(EndLabel(known[-1], dots.label, dots.color))
    if not drawn:
        return False
    fit_range(ax, reach=panel.reach)
    ax.set_xlim(-1.0, max(places.values()) + 1.0)
    mark_ends(ax, [*ends, *draw_levels(ax, panel.levels)], height=_SIZE[1] * 72 / 3 * 0.66)
    missing = [p for p, y in zip(places.values(), values, strict=True) if math.isnan(y)]
    for place in missing if len(heads) <= _MOST_NUMBERS else ():
        text = ax.text(place, 0.02, "n/a", transform=ax.get_xaxis_transform(), color=GREY)
        text.set(ha="center", fontsize=SMALL)
    return True


def _name_layers(ax: Axes, places: Mapping[tuple[str, str], float], *, names: bool) -> None:
    """A line between two layers; below the lowest panel the numbers of heads and the layers."""
    layers: dict[str, list[float]] = {}
    for (label, _), place in places.items():
        layers.setdefault(label, []).append(place)
    for own in list(layers.values())[1:]:
        ax.axvline(own[0] - (1.0 + _GAP) / 2, color=GRID, linewidth=1.2, zorder=0)
    numbers = [head.removeprefix("H").lstrip("0") or "0" for _, head in places]
    few = names and len(places) <= _MOST_NUMBERS
    ax.set_xticks(list(places.values()), numbers if few else [""] * len(places))
    ax.tick_params(axis="x", which="both", length=0, labelsize=SMALL)
    if not names:
        return
    step = math.ceil(len(layers) / _MOST_NAMES)
    named = [f"\n{verbatim(n)}" if i % step == 0 else "" for i, n in enumerate(short_names(layers))]
    ax.xaxis.remove_overlapping_locs = False  # the middle of a layer may be the place of a head
    ax.set_xticks([sum(own) / len(own) for own in layers.values()], named, minor=True)
    ax.set_xlabel("head, layer by layer", fontsize=NORMAL, color=INK)
