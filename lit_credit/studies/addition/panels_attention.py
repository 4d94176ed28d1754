"""Panels of the adder's sheet that show its attention, and the place value in it."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.patches import Rectangle

from lit_credit.plotting._style import (
    AMBER,
    BLUE,
    GREY,
    INK,
    ORANGE,
    SMALL,
    dress,
    not_applicable,
    whole_numbers_across,
)
from lit_credit.runs.history import Row
from lit_credit.runs.series import series
from lit_credit.studies.addition.findings import AdderFindings
from lit_credit.studies.addition.place_slots import place_slots
from lit_credit.utils.numbers import number_text

__all__ = ["draw_attention", "draw_forced", "draw_ratio", "draw_ratio_history", "draw_sources"]

_TENTH = 0.1
_SOURCES = 5
_HIGHEST = 0.4
"""Of the ratios that are shown: before training they are about 1."""


def draw_attention(ax: Axes, found: AdderFindings) -> None:
    """Panel 4."""
    layout, attention = found.layout, found.parts.attention
    rows, own, leak = place_slots(layout)
    above = attention[rows[:, None], own].sum(1).mean()
    below = attention[rows[:, None], leak].sum(1).mean()
    shares = [number_text(float(share), ".2f") for share in (above, below)]
    title = f"4  Attention: {shares[0]} on the column's X and Y,\n{shares[1]} on the column below"
    dress(ax, title, "predicts", "looks at")
    if not attention.isfinite().any():
        not_applicable(ax)
        return
    ax.grid(False)
    # Of the square root, so that the column below is seen beside the column itself.
    colors = PowerNorm(0.5, vmin=0, vmax=1)
    image = ax.imshow(attention.tolist(), cmap="Blues", norm=colors, aspect="auto")
    ax.figure.colorbar(image, ax=ax, ticks=[0, 0.05, 0.2, 0.5, 1], pad=0.02)
    ax.set_yticks(range(len(attention)), layout.names[layout.answers])
    ax.set_xticks(range(layout.inputs), layout.names[: layout.inputs], rotation=90, fontsize=8)


def draw_sources(ax: Axes, found: AdderFindings) -> None:
    """Panel 5."""
    layout, attention = found.layout, found.parts.attention
    dress(ax, "5  Top sources of each answer (blue: its column,\namber: the one below)", "", "rank")
    ax.grid(False)
    count = min(_SOURCES, layout.inputs)
    top = attention.topk(count)
    kinds = _kinds(found)
    for row, (places, weights) in enumerate(
        zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ):
        for rank, (place, weight) in enumerate(zip(places, weights, strict=True)):
            color = kinds.get((row, place), GREY)
            alpha = min(max(weight, 0.0), 0.5) * 1.2 + 0.12 if weight == weight else 0
            ax.add_patch(
                Rectangle((rank - 0.48, row - 0.45), 0.96, 0.9, color=color, alpha=alpha, lw=0)
            )
            text = f"{layout.names[place]} {weight:.3f}" if weight == weight else "n/a"
            ax.text(rank, row, text, ha="center", va="center", fontsize=SMALL, color=INK)
    ax.set(xlim=(-0.5, count - 0.5), ylim=(len(attention) - 0.5, -0.5))
    ax.set_yticks(range(len(attention)), layout.names[layout.answers])
    ax.set_xticks(range(count), [str(rank + 1) for rank in range(count)])


def draw_ratio(ax: Axes, found: AdderFindings) -> None:
    """Panel 13, now."""
    mean = number_text(float(found.ratio.mean()))
    title = f"13a  Place-value ratio: mean {mean}\n(column below / own column; 0.1 is base ten)"
    dress(ax, title, "ratio", "predicted digit")
    finite = {i: v for i, v in enumerate(found.ratio.tolist(), 1) if math.isfinite(v)}
    if not finite:
        not_applicable(ax)
        return
    ax.axhline(_TENTH, color=GREY, linestyle="--")
    # What reads the wrong columns may have any ratio: written at the edge.
    top = min(max(0.15, 1.15 * max(finite.values())), _HIGHEST)
    for i, value in finite.items():
        ax.plot(i, min(value, top), "o" if value <= top else "^", color=BLUE, markersize=9)
        if value > top:
            ax.annotate(f"{value:.2g}", (i, top), (0, -16), textcoords="offset points", ha="center")
    ax.set_xticks(range(1, len(found.ratio) + 1), [f"Z{i + 1}" for i in range(len(found.ratio))])
    ax.set_ylim(0, 1.03 * top)


def draw_ratio_history(ax: Axes, rows: Sequence[Row], section: str) -> None:
    """Panel 13, over training."""
    dress(ax, "13b  Mean ratio over training", "ratio", "optimizer steps")
    measured = series(rows, f"{section}/ratio/mean", "step")
    curve = {step: ratio for step, ratio in measured.items() if math.isfinite(ratio)}
    if len(curve) < 2:
        not_applicable(ax)
        return
    highest = max(min(max(curve.values()), _HIGHEST), 0.15)
    ax.axhline(_TENTH, color=GREY, linestyle="--")
    ax.plot(list(curve), list(curve.values()), "o-", color=BLUE, linewidth=2, markersize=4)
    ax.set_ylim(0, 1.1 * highest)
    whole_numbers_across(ax)


def draw_forced(ax: Axes, found: AdderFindings) -> None:
    """Panel 14."""
    if math.isnan(found.exact):
        dress(ax, "14  Sums right at a forced ratio", "share of sums right", "ratio forced")
        not_applicable(ax)
        return
    best = float(found.forced.max())
    without = ", ".join(f"{name} {100 * exact:.0f}" for name, exact in found.without.items())
    title = f"14  Sums right at a forced ratio: best {100 * best:.1f} %\n"
    title += f"(% right without a source below: {without})"
    dress(ax, title, "share of sums right", "ratio forced on all columns")
    if not len(found.ratio):
        not_applicable(ax)
        return
    pairs = sorted(zip(found.ratios.tolist(), found.forced.tolist(), strict=True))
    ax.axvline(_TENTH, color=GREY, linestyle="--")
    ax.plot([r for r, _ in pairs], [e for _, e in pairs], "o-", color=ORANGE, linewidth=2)
    ax.axhline(found.exact, color=BLUE, linewidth=1.2)
    ax.text(
        0.98,
        min(found.exact + 0.02, 1.01),
        f"net as it is: {100 * found.exact:.2f} %",
        transform=ax.get_yaxis_transform(),
        ha="right",
        fontsize=SMALL,
        color=BLUE,
    )
    ax.set_ylim(0, 1.08)


def _kinds(found: AdderFindings) -> dict[tuple[int, int], str]:
    """Row and source to the colour of a column's own digits, or of those below."""
    layout = found.layout
    kinds = {}
    for i in range(layout.digits + 1):
        for part in (layout.x, layout.y, layout.z):
            if i > 0:
                kinds[i, part.start + i - 1] = AMBER
            if i < layout.digits and part != layout.z:
                kinds[i, part.start + i] = BLUE
    return kinds
