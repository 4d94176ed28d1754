"""Panels of the adder's sheet that show where digits and positions are, and what reads them."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor

from lit_credit.plotting._style import BLUE, GREEN, GREY, INK, ORANGE, SMALL, dress, not_applicable
from lit_credit.studies.addition.findings import AdderFindings
from lit_credit.utils.numbers import number_text

__all__ = ["draw_digits", "draw_factors", "draw_gains", "draw_keys", "draw_queries", "draw_readout"]

_SITES = {"block.norm1": "before attention", "block.norm2": "before the FFN", "norm": "at the end"}
_STREAM = ("digit 1", "digit 2", "pos 1", "pos 2", "pos 3")


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
