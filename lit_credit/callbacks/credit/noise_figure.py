"""The figure of ``GradientNoise``: the noise scale beside the batch."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_credit.plotting._style import (
    AMBER,
    BLUE,
    GREY,
    INK,
    ORANGE,
    SMALL,
    EndLabel,
    drawable,
    dress,
    last_finite,
    mark_ends,
    not_applicable,
    readable_ticks,
    show_place,
    verbatim,
    whole_numbers_across,
)
from lit_credit.plotting.layer_curves import abscissa
from lit_credit.runs.history import Row
from lit_credit.runs.series import layer_tags, series
from lit_credit.utils.numbers import number_text

__all__ = ["noise_figure"]

_HEIGHT = 4.4
_MOST_LABELS = 12


class _Curve(NamedTuple):
    prefix: str
    text: str
    color: str
    style: str


_CURVES = (_Curve("exact_", "exact", ORANGE, "--"), _Curve("", "update", BLUE, "-"))


def noise_figure(
    rows: Sequence[Row],
    section: str = "noise",
    *,
    batch: float = math.nan,
    names: Sequence[str] = (),
) -> Figure:
    """Draw the noise scale over training, and that of each unit at the end.

    Without units the second panel shows the cosine of two halves of the probe.

    Args:
        rows: rows of a history.
        section: prefix of the tags.
        batch: rows of a training batch, drawn as a line; NaN if not known.
        names: names of the units.

    Returns:
        The figure, two panels.

    Example:
        >>> row = {"step": 0, "epoch": 0, "name": "", "values": {"noise/scale": 64.0}}
        >>> len(noise_figure([row], batch=32).axes)
        2
    """
    figure = Figure(figsize=(10.5, _HEIGHT), layout="constrained")
    left, right = figure.subplots(1, 2)
    _, xlabel = abscissa(rows)
    dress(left, "Noise scale of the gradient", "rows", xlabel, log=True)
    _draw(left, rows, f"{section}/", "scale", log=True)
    if layer_tags(rows, f"{section}/scale/"):
        dress(right, "Noise scale by unit, at the end", "rows", "unit", log=True)
        _draw_units(right, rows[-1], section, names)
    else:
        dress(right, "Agreement of two half probes", "cosine", xlabel)
        _draw(right, rows, f"{section}/", "cosine", log=False)
        right.set_ylim(min(-0.05, right.get_ylim()[0]), 1.05)
    for ax in (left, right):
        if ax.get_yscale() == "log" and ax.lines:
            _mark_batch(ax, batch)
    return figure


def _draw(ax: Axes, rows: Sequence[Row], prefix: str, quantity: str, *, log: bool) -> None:
    by, _ = abscissa(rows)
    whole_numbers_across(ax)
    ends: list[EndLabel] = []
    for one in _CURVES:
        curve = series(rows, f"{prefix}{one.prefix}{quantity}", by)
        values = drawable(curve.values(), log=log)
        dot = 4 if len(values) <= 15 else 0
        ax.plot(
            list(curve), values, one.style, color=one.color, linewidth=2, marker="o", markersize=dot
        )
        if any(value == value for value in values):
            show_place(ax, list(curve)[-1], values)
            last = number_text(list(curve.values())[-1], ".3g")
            ends.append(EndLabel(last_finite(values), f"{one.text} {last}", one.color))
    if len(ends) == 2 and ends[0].y == ends[1].y:
        ends = [ends[1]._replace(text=f"{ends[1].text} (exact)")]
    if not ends:
        for line in list(ax.lines):
            line.remove()
        not_applicable(ax)
        return
    ax.set_xlim(min(0, ax.dataLim.x0), max(ax.dataLim.x1, 1))
    mark_ends(ax, ends, height=_HEIGHT * 72 * 0.8)


def _draw_units(ax: Axes, row: Row, section: str, names: Sequence[str]) -> None:
    ends = 0
    for one in _CURVES:
        tags = layer_tags([row], f"{section}/{one.prefix}scale/")
        values = drawable((row["values"][tag] for tag in tags), log=True)
        ax.plot(range(len(values)), values, one.style, color=one.color, marker="o", label=one.text)
        ends += sum(value == value for value in values)
    if not ends:
        for line in list(ax.lines):
            line.remove()
        not_applicable(ax)
        return
    ax.legend(fontsize=SMALL, frameon=False, loc="best")
    undefined = [index for index, value in enumerate(values) if value != value]
    for place in undefined:  # of the update, which is drawn last
        ax.annotate(
            "n/a",
            (place, 0.97),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="top",
            fontsize=SMALL,
            color=GREY,
        )
    ax.set_xlim(-0.5, len(values) - 0.5)
    count = len(names)
    kept = range(0, count, max(1, math.ceil(count / _MOST_LABELS)))
    labels = [verbatim(names[index]) for index in kept]
    ax.set_xticks(list(kept), labels, rotation=30, ha="right")


def _mark_batch(ax: Axes, batch: float) -> None:
    """A line at the training batch, and a band above it, where noise dominates."""
    if math.isnan(batch):
        return
    low, high = ax.get_ylim()
    low, high = min(low, batch / 4), max(high, batch * 4)
    ax.set_ylim(low, high)
    readable_ticks(ax)
    ax.axhline(batch, color=INK, linestyle="--", linewidth=1.2, zorder=1)
    ax.axhspan(batch, high, color=AMBER, alpha=0.18, zorder=0)
    for text, place, side in (
        (f"above a batch ({batch:.0f} rows): noise dominates it", 1.06, "bottom"),
        ("below: more rows a batch help little", 0.94, "top"),
    ):
        ax.annotate(
            text,
            (0.98, batch * place),
            xycoords=("axes fraction", "data"),
            ha="right",
            va=side,
            fontsize=SMALL - 1,
            color=INK,
        )
