"""The study's figure: fifteen panels about a net that adds."""

import math
from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from lit_credit.plotting._style import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    INK,
    LARGE,
    ORANGE,
    SMALL,
    drawable,
    dress,
    not_applicable,
    whole_numbers_across,
)
from lit_credit.runs.history import Row
from lit_credit.runs.series import series
from lit_credit.studies.addition.findings import AdderFindings, top_sources
from lit_credit.studies.addition.layout import place_slots
from lit_credit.utils.numbers import number_text

__all__ = ["adder_sheet"]

_SITES = {"block.norm1": "before attention", "block.norm2": "before the FFN", "norm": "at the end"}
_STREAM = ("digit 1", "digit 2", "pos 1", "pos 2", "pos 3")

_TENTH = 0.1
_HIGHEST = 0.4
"""Of the ratios that are shown: before training they are about 1."""


def adder_sheet(found: AdderFindings, rows: Sequence[Row], *, section: str = "adder") -> Figure:
    """Draw what a net reads, where it looks, which sums it gets wrong, and how it learned.

    The panels, of which 13 has two parts: 1 the digits' embedding, 2 queries and 3 keys in their
    plane, 4 attention and 5 its top sources, 6 errors by digit, 7 and by the carry into it, 8 by
    how much they are off, 9 what attention reads of a digit, 10 and through which features, 11 the
    norms' gains, 12 training, 13 the place-value ratio, 14 sums right at a forced ratio, 15 sums
    right by their longest run of carries.

    Args:
        found: a measurement.
        rows: of the history ``adder_anatomy``, for the panels over training.
        section: the first part of the history's tags.

    Returns:
        The figure; a panel without anything to show says n/a.
    """
    figure = Figure(figsize=(26.0, 21.0))
    figure.set_layout_engine("constrained", w_pad=0.15, h_pad=0.15)
    axes = list(figure.subplots(_SIDE, _SIDE).flat)
    sums, symbols = (number_text(100 * x, ".2f") for x in (found.exact, found.token_accuracy))
    title = (
        f"A net that adds two numbers of {found.layout.digits} digits: {sums} % of "
        f"{found.sums:,} sums right, {symbols} % of the answers' symbols"
    )
    figure.suptitle(title, fontsize=LARGE + 6, fontweight="bold", color=INK)
    for index, (ax, draw) in enumerate(zip(axes, _PANELS, strict=True)):
        if draw is not None:
            draw(ax, found)
        else:
            _OVER_TRAINING[index](ax, rows, section)
    return figure


# The digits, the positions, and what reads them.


def draw_digits(ax: Axes, found: AdderFindings) -> None:
    """Panel 1."""
    points = found.parts.digits
    dress(ax, "1  Embedding of the ten digits", "feature 2 of the digit", "feature 1 of the digit")
    _scatter(ax, points, [str(d) for d in range(len(points))], BLUE, line=True)
    ax.set_aspect("equal", adjustable="datalim")


def draw_queries(ax: Axes, found: AdderFindings) -> None:
    """Panel 2."""
    layout, parts = found.layout, found.parts
    plane, share = _plane(parts.queries, parts.keys)
    names = [f"→{name}" for name in layout.names[layout.answers]]
    within = number_text(100 * share, ".0f")
    title = f"2  Queries, by what they predict\n({within} % of q and k is in this plane)"
    dress(ax, title, "direction 2", "direction 1")
    _scatter(ax, parts.queries[layout.rows] @ plane, names, ORANGE)


def draw_keys(ax: Axes, found: AdderFindings) -> None:
    """Panel 3."""
    layout, parts = found.layout, found.parts
    plane, _ = _plane(parts.queries, parts.keys)
    # X, Y and Z of a column have one position, and one key.
    shown = [*range(layout.x.start, layout.x.stop), layout.digits, layout.rows.start]
    shown.append(layout.rows.stop - 1)
    names = [*(f"col {i}" for i in range(layout.digits)), "+", "=", f"Z{layout.digits}"]
    title = "3  Keys of the columns, in the same plane\n(a query looks where it points)"
    dress(ax, title, "direction 2", "direction 1")
    _scatter(ax, parts.keys[shown] @ plane, names, BLUE)


def draw_readout(ax: Axes, found: AdderFindings) -> None:
    """Panel 9."""
    read = found.readout
    direct = found.parts.read is not None
    what = "gain E[d] H a, times |b|" if direct else "leading direction of output"
    r2, share = number_text(float(read.linearity), ".3f"), 100 * float(read.share)
    title = f"9  What attention reads of a digit: R² {r2}\n"
    title += f"({what}: {number_text(share, '.0f')} % of the map)"
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


def draw_factors(ax: Axes, found: AdderFindings) -> None:
    """Panel 10."""
    parts = found.parts
    if parts.read is not None and parts.write is not None:
        read, write = parts.read.abs().tolist(), parts.write.abs().tolist()
        title = "10  Attention output b aᵀ:\n|a| reads values, |b| writes to the stream"
        labels = [f"value {i + 1}" for i in range(len(read))]
    else:
        read, write = found.readout.read.abs().tolist(), found.readout.write.abs().tolist()
        title = (
            "10  Attention output, leading direction:\n|v| reads digits, |u| writes to the stream"
        )
        labels = list(_STREAM[: len(read)])
    dress(ax, title, "absolute value")
    if any(value != value for value in (*read, *write)):
        not_applicable(ax)
        return
    ax.bar(range(len(read)), read, color=BLUE)
    places = [len(read) + 0.7 + i for i in range(len(write))]
    ax.bar(places, write, color=ORANGE)
    labels += list(_STREAM)
    ax.set_xticks([*range(len(read)), *places], labels, rotation=45, ha="right")


def draw_gains(ax: Axes, found: AdderFindings) -> None:
    """Panel 11."""
    gains = found.parts.gains
    one = " (one, shared)" if len(gains) == 1 else ""
    beside = "other run: hollow" if found.reference else "no other run to compare with"
    dress(ax, f"11  Gain of the norms{one}\n({beside})", "gain")
    width = 0.8 / max(len(gains), 1)
    for index, (name, gain) in enumerate(gains.items()):
        color = (BLUE, ORANGE, GREEN)[index % 3]
        places = [i + (index - (len(gains) - 1) / 2) * width for i in range(len(gain))]
        label = _SITES.get(name, name) if len(gains) > 1 else "all three norms"
        ax.bar(places, gain.tolist(), width=width, color=color, label=label)
        if name in found.reference:
            other = found.reference[name].tolist()
            ax.bar(places, other, width=width, fill=False, edgecolor=INK, linewidth=1.5)
    if not any(gain.isfinite().any() for gain in gains.values()):
        not_applicable(ax)
        return
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set_xticks(range(len(_STREAM)), _STREAM)
    ax.legend(fontsize=SMALL, frameon=False)


def _plane(queries: Tensor, keys: Tensor) -> tuple[Tensor, float]:
    """The two directions that queries and keys vary along most, (width, 2), and their share."""
    both = torch.cat([queries, keys]).double()
    if not both.isfinite().all() or both.norm() == 0:
        return torch.eye(both.shape[1], 2).to(queries), float("nan")
    _, s, vh = torch.linalg.svd(both, full_matrices=False)
    share = s[:2].square().sum() / s.square().sum()
    return vh[:2].T.to(queries), float(share)


def _scatter(
    ax: Axes, points: Tensor, names: Sequence[str], color: str, *, line: bool = False
) -> None:
    x, y = points[:, 0].tolist(), points[:, 1].tolist()
    if not points.isfinite().all():
        not_applicable(ax)
        return
    ax.axhline(0, color=GREY, linewidth=0.6)
    ax.axvline(0, color=GREY, linewidth=0.6)
    ax.plot(x, y, "o-" if line else "o", color=color, markersize=6, linewidth=1)
    for name, left, up in zip(names, x, y, strict=True):
        ax.annotate(
            name, (left, up), xytext=(5, 4), textcoords="offset points", fontsize=SMALL, color=INK
        )
    ax.margins(0.15)


# Attention, and the place value in it.


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
    layout = found.layout
    dress(ax, "5  Top sources of each answer (blue: its column,\namber: the one below)", "", "rank")
    ax.grid(False)
    sources, kinds = top_sources(found), _kinds(found)
    count = len(sources[0])
    for row, top in enumerate(sources):
        for rank, (place, weight) in enumerate(top):
            color = kinds.get((row, place), GREY)
            alpha = min(max(weight, 0.0), 0.5) * 1.2 + 0.12 if weight == weight else 0
            ax.add_patch(
                Rectangle((rank - 0.48, row - 0.45), 0.96, 0.9, color=color, alpha=alpha, lw=0)
            )
            text = f"{layout.names[place]} {weight:.3f}" if weight == weight else "n/a"
            ax.text(rank, row, text, ha="center", va="center", fontsize=SMALL, color=INK)
    ax.set(xlim=(-0.5, count - 0.5), ylim=(len(sources) - 0.5, -0.5))
    ax.set_yticks(range(len(sources)), layout.names[layout.answers])
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
    # A net that reads the wrong columns may have any ratio: the text at the edge says it.
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


# Which sums come out wrong, and how the net learned.


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


_SIDE = 4
_PANELS = (
    *(draw_digits, draw_queries, draw_keys, draw_attention),
    *(draw_sources, draw_ratio, None, draw_forced),
    *(draw_errors, draw_errors_by_carry, draw_differences, draw_runs),
    *(draw_readout, draw_factors, draw_gains, None),
)
"""Row by row; None where a panel is drawn from the history."""
_OVER_TRAINING = {6: draw_ratio_history, 15: draw_training}
