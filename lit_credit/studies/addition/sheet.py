"""The study's figure: six panels about a net that adds."""

import math
from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from lit_credit.plotting._style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LARGE,
    NORMAL,
    ORANGE,
    SMALL,
    drawable,
    dress,
    not_applicable,
    whole_numbers_across,
)
from lit_credit.runs.history import Row
from lit_credit.runs.series import series
from lit_credit.studies.addition.findings import AdderFindings
from lit_credit.studies.addition.layout import place_slots
from lit_credit.utils.numbers import number_text

__all__ = ["adder_sheet"]

_TENTH = 0.1
_HIGHEST = 0.4
"""Of the ratios that are shown: before training they are about 1."""


def adder_sheet(found: AdderFindings, rows: Sequence[Row], *, section: str = "adder") -> Figure:
    """Draw where a net looks, what it reads there, and which sums it gets right.

    The panels: 1 attention, 2 the place-value ratio of every column, 3 sums right at a forced
    ratio, 4 what attention reads of a digit, 5 sums right by their longest run of carries, 6
    training. All else that was measured is in the tables of
    :class:`lit_credit.studies.addition.AdderAnatomy`.

    Args:
        found: a measurement.
        rows: of the history ``adder_anatomy``, for the panel over training.
        section: the first part of the history's tags.

    Returns:
        The figure; a panel without anything to show says n/a.
    """
    figure = Figure(figsize=(10.0, 12.0))
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    sums, symbols = (number_text(100 * x, ".2f") for x in (found.exact, found.token_accuracy))
    title = (
        f"Two numbers of {found.layout.digits} digits: {sums} % of {found.sums:,} sums right,\n"
        f"{symbols} % of the answers' symbols"
    )
    figure.suptitle(title, fontsize=LARGE + 2, fontweight="bold", color=INK)
    axes = list(figure.subplots(3, 2).flat)
    for ax, draw in zip(axes, _PANELS, strict=False):
        draw(ax, found)
    draw_training(axes[-1], rows, section)
    for ax in axes:  # findings stand in the titles, which are as wide as their panels
        text = ax.get_title(loc="left")
        ax.set_title(text, loc="left", fontsize=NORMAL, fontweight="bold", color=INK)
    return figure


def draw_attention(ax: Axes, found: AdderFindings) -> None:
    """Panel 1."""
    layout, attention = found.layout, found.parts.attention
    rows, own, leak = place_slots(layout)
    above = attention[rows[:, None], own].sum(1).mean()
    below = attention[rows[:, None], leak].sum(1).mean()
    shares = [number_text(float(share), ".2f") for share in (above, below)]
    title = f"1  Looks at its column's X and Y ({shares[0]}),\n"
    title += f"    and at the column below ({shares[1]})"
    dress(ax, title, "predicts", "looks at")
    if not attention.isfinite().any():
        not_applicable(ax)
        return
    ax.grid(False)
    # Of the square root, so that the column below is seen beside the column itself.
    colors = PowerNorm(0.5, vmin=0, vmax=1)
    image = ax.imshow(attention.tolist(), cmap="Blues", norm=colors, aspect="auto")
    ax.figure.colorbar(image, ax=ax, ticks=[0, 0.05, 0.2, 0.5, 1], pad=0.02)
    names = layout.names[layout.answers]
    ax.set_yticks(range(0, len(names), 2), names[::2])
    groups = {"X": layout.x, "Y": layout.y, "Z": layout.z}
    # Names of all positions would overlap: the digits of X, Y and Z stand in one order.
    ax.set_xticks([(g.start + g.stop - 1) / 2 for g in groups.values()], list(groups))
    ax.tick_params(axis="x", length=0)
    for group in (layout.y, layout.z):
        ax.axvline(group.start - 1, color=GREY, linewidth=0.8)


def draw_ratio(ax: Axes, found: AdderFindings) -> None:
    """Panel 2."""
    mean = number_text(float(found.ratio.mean()))
    title = f"2  Column below over its own: {mean}\n    (0.1 is base ten)"
    dress(ax, title, "ratio of attention", "predicted digit")
    finite = {i: v for i, v in enumerate(found.ratio.tolist(), 1) if math.isfinite(v)}
    if not finite:
        not_applicable(ax)
        return
    ax.axhline(_TENTH, color=GREY, linestyle="--")
    # A net that reads the wrong columns may have any ratio: the text at the edge says it.
    top = min(max(0.15, 1.15 * max(finite.values())), _HIGHEST)
    for i, value in finite.items():
        ax.plot(i, min(value, top), "o" if value <= top else "^", color=BLUE, markersize=9)
        if value > top:
            ax.annotate(f"{value:.2g}", (i, top), (0, -16), textcoords="offset points", ha="center")
    ax.set_xticks(range(1, len(found.ratio) + 1), [f"Z{i + 1}" for i in range(len(found.ratio))])
    ax.set_ylim(0, 1.03 * top)


def draw_forced(ax: Axes, found: AdderFindings) -> None:
    """Panel 3."""
    if math.isnan(found.exact):
        dress(ax, "3  Sums right at a forced ratio", "share of sums right", "ratio forced")
        not_applicable(ax)
        return
    best = float(found.forced.max())
    without = ", ".join(f"{name} {100 * exact:.0f}" for name, exact in found.without.items())
    title = f"3  Adds at this ratio only: best {100 * best:.1f} %\n"
    title += f"    (without a source below: {without} %)"
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


def draw_readout(ax: Axes, found: AdderFindings) -> None:
    """Panel 4."""
    read = found.readout
    direct = found.parts.read is not None
    what = "gain E[d] H a, times |b|" if direct else "leading direction"
    r2, share = number_text(float(read.linearity), ".3f"), 100 * float(read.share)
    title = f"4  Reads a digit as a number: R² {r2}\n"
    title += f"    ({what}: {number_text(share, '.0f')} %)"
    dress(ax, title, "read of the digit", "digit")
    values = read.values.tolist()
    if not read.values.isfinite().all():
        not_applicable(ax)
        return
    digits = torch.arange(len(values), dtype=read.values.dtype)
    centred = digits - digits.mean()
    slope = (centred @ read.values) / centred.square().sum()
    line = read.values.mean() + slope * centred
    ax.plot(digits.tolist(), line.tolist(), color=GREY, linestyle="--", label="straight line")
    ax.plot(digits.tolist(), values, "o", color=BLUE, markersize=8, label="digits")
    ax.set_xticks(range(len(values)))
    ax.legend(fontsize=SMALL, frameon=False)


def draw_runs(ax: Axes, found: AdderFindings) -> None:
    """Panel 5."""
    runs = found.runs.tolist()
    title = f"5  Sums right, by longest run of carries\n    {_of_errors(found)}"
    dress(ax, title, "share of sums right", "columns that receive a carry, in a row")
    heights = [0.0 if v != v else v for v in runs]
    ax.bar(range(len(runs)), heights, color=GREEN)
    for i, value in enumerate(runs):
        text = "n/a" if value != value else f"{100 * value:.3g} %"
        inside = heights[i] > 0.3
        ax.text(
            i,
            heights[i] - 0.02 if inside else heights[i] + 0.02,
            text,
            ha="center",
            va="top" if inside else "bottom",
            rotation=90,
            fontsize=SMALL,
            color="white" if inside else INK,
        )
    ax.set_xticks(range(len(runs)))
    ax.set_ylim(0, 1.1)


def draw_training(ax: Axes, rows: Sequence[Row], section: str) -> None:
    """Panel 6."""
    curves = {
        name: series(rows, f"{section}/{tag}", "step")
        for tag, name in (("token_accuracy", "answers"), ("exact", "sums"))
    }
    shown = {
        name: curve for name, curve in curves.items() if sum(map(math.isfinite, curve.values())) > 1
    }
    ends = [
        f"{number_text(100 * list(curve.values())[-1], '.1f')} % of {name}"
        for name, curve in shown.items()
    ]
    title = f"6  Right over training, at its end\n    {', '.join(ends)}" if ends else "6  Training"
    dress(ax, title, "share right", "optimizer steps")
    if not shown:
        not_applicable(ax)
        return
    for (name, curve), color in zip(shown.items(), (BLUE, GREEN), strict=False):
        steps, values = list(curve), drawable(curve.values(), log=False)
        ax.plot(steps, values, "o-", color=color, linewidth=2, markersize=4, label=name)
    ax.set_ylim(-0.02, 1.05)
    whole_numbers_across(ax, most=4)
    ax.legend(fontsize=SMALL, frameon=False)


def _of_errors(found: AdderFindings) -> str:
    """How many digits are wrong, and of which kind most are."""
    wrong = found.differences[:, 1:]  # off by 1 .. 9
    if not wrong.isfinite().all():
        return "wrong digits: n/a"
    if not (total := int(wrong.sum())):
        return f"no wrong digit of {int(found.differences.sum()):,}"
    by_one = 100 * int(wrong[:, [0, -1]].sum()) / total
    return f"{total:,} wrong digits, {by_one:.0f} % off by one"


_PANELS = (draw_attention, draw_ratio, draw_forced, draw_readout, draw_runs)
