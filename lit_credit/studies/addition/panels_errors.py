"""Panels of the adder's sheet that show which sums come out wrong, and how it learned."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from lit_credit.plotting._style import (
    BLUE,
    GREEN,
    GREY,
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
from lit_credit.utils.numbers import number_text

__all__ = ["draw_differences", "draw_errors", "draw_errors_by_carry", "draw_runs", "draw_training"]


def draw_errors(ax: Axes, found: AdderFindings) -> None:
    """Panel 6."""
    if math.isnan(found.exact):
        _undefined(ax, "6  Wrong digits")
        return
    errors = found.errors[:, 0].tolist()
    worst = max(range(len(errors)), key=lambda i: errors[i])
    title = f"6  Wrong digits: {100 * sum(errors) / len(errors):.2f} %"
    title += f", most in Z{worst} ({100 * errors[worst]:.2f} %)" if errors[worst] else ", none"
    dress(ax, title, "share wrong", "predicted digit")
    if not errors[worst]:
        _nothing(ax)
        return
    ax.bar(range(len(errors)), errors, color=BLUE)
    _columns(ax, len(errors), max(errors))


def draw_errors_by_carry(ax: Axes, found: AdderFindings) -> None:
    """Panel 7."""
    if math.isnan(found.exact):
        _undefined(ax, "7  Wrong digits, by the carry into the column")
        return
    none, carry = found.errors[:, 1].tolist(), found.errors[:, 2].tolist()
    title = "7  Wrong digits, by the carry into the column"
    dress(ax, title, "share wrong", "predicted digit")
    if not found.errors[:, 0].any():
        _nothing(ax)
        return
    places = range(len(none))
    for shift, values, color, label in (
        (-0.2, none, BLUE, "no carry in"),
        (0.2, carry, ORANGE, "carry in"),
    ):
        heights = [0.0 if v != v else v for v in values]
        ax.bar([i + shift for i in places], heights, width=0.4, color=color, label=label)
        for i in (i for i in places if math.isnan(values[i])):
            ax.text(i + shift, 0, "n/a", ha="center", va="bottom", fontsize=8, color=GREY)
    _columns(ax, len(none), max(v for v in (*none, *carry) if v == v))
    ax.legend(fontsize=SMALL, frameon=False)


def draw_differences(ax: Axes, found: AdderFindings) -> None:
    """Panel 8."""
    if math.isnan(found.exact):
        _undefined(ax, "8  Wrong digits, by how much")
        return
    counts = found.differences[:, 1:]  # off by 1 .. 9
    total, digits = int(counts.sum()), int(found.differences.sum())
    across = "predicted - right, modulo 10"
    if not total:
        dress(ax, f"8  No wrong digit among {digits:,}", "wrong digits", across)
        _nothing(ax)
        return
    by_one = 100 * int(counts[:, [0, -1]].sum()) / total
    of_carries = 100 * int(counts[1, -1] + counts[0, 0]) / total
    title = f"8  {total:,} wrong digits: {by_one:.0f} % off by one,\n"
    title += f"{of_carries:.0f} % a carry missed (-1) or made up (+1)"
    dress(ax, title, "wrong digits", across)
    # From -4 to 5, so that one too low and one too high stand beside each other.
    offs = [*range(-4, 0), *range(1, 6)]
    none, carry = ([int(row[off % 10 - 1]) for off in offs] for row in counts)
    ax.bar(offs, none, color=BLUE, label="no carry in")
    ax.bar(offs, carry, bottom=none, color=ORANGE, label="carry in")
    ax.set_xticks(offs, ["±5" if off == 5 else f"{off:+d}" for off in offs])
    ax.legend(fontsize=SMALL, frameon=False)


def draw_runs(ax: Axes, found: AdderFindings) -> None:
    """Panel 15."""
    runs = found.runs.tolist()
    title = "15  Sums right, by their longest run of carries"
    dress(ax, title, "share of sums right", "columns that receive a carry, in a row")
    heights = [0.0 if v != v else v for v in runs]
    ax.bar(range(len(runs)), heights, color=GREEN)
    for i, value in enumerate(runs):
        text = "n/a" if value != value else f"{100 * value:.3g}"
        ax.text(i, heights[i] + 0.01, text, ha="center", fontsize=SMALL)
    ax.set_xticks(range(len(runs)))
    ax.set_ylim(0, 1.1)


def draw_training(ax: Axes, rows: Sequence[Row], section: str) -> None:
    """Panel 12."""
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
    title = f"12  Right over training, at its end\n{', '.join(ends)}" if ends else "12  Training"
    dress(ax, title, "share right", "optimizer steps")
    if not shown:
        not_applicable(ax)
        return
    for (name, curve), color in zip(shown.items(), (BLUE, GREEN), strict=False):
        steps, values = list(curve), drawable(curve.values(), log=False)
        ax.plot(steps, values, "o-", color=color, linewidth=2, markersize=4, label=name)
    ax.set_ylim(-0.02, 1.05)
    whole_numbers_across(ax)
    ax.legend(fontsize=SMALL, frameon=False)


def _undefined(ax: Axes, title: str) -> None:
    dress(ax, title, "share wrong", "predicted digit")
    not_applicable(ax)


def _nothing(ax: Axes) -> None:
    ax.set(xticks=[], yticks=[])
    ax.text(0.5, 0.5, "none", transform=ax.transAxes, ha="center", fontsize=22, color=GREY)


def _columns(ax: Axes, count: int, highest: float) -> None:
    ax.set_xticks(range(count), [f"Z{i}" for i in range(count)])
    ax.set_ylim(0, max(1.1 * highest, 0.001))
