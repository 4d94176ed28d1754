"""A net against the best that its rank allows."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_credit.plotting._style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LARGE,
    ORANGE,
    PURPLE,
    EndLabel,
    drawable,
    dress,
    last_finite,
    mark_ends,
    not_applicable,
    show_place,
    whole_numbers_across,
)
from lit_credit.runs.history import Row
from lit_credit.runs.series import series
from lit_credit.utils.numbers import number_text

__all__ = ["theory_figure"]

_HEIGHT = 4.6


class _Line(NamedTuple):
    tag: str
    text: str
    color: str
    style: str = "-"


_DIVERGENCES = (
    _Line("kl", "net", BLUE),
    _Line("variance", "net, half a variance", GREEN, "--"),
    _Line("kl_best", "best vectors", ORANGE),
    _Line("kl_second_order", "best to second order", PURPLE, "--"),
    _Line("kl_low_rank", "truncated SVD", GREY, ":"),
)
_COSINE = (_Line("cosine", "cosine", PURPLE),)


def theory_figure(rows: Sequence[Row], *, title: str = "", section: str = "theory") -> Figure:
    """Divergences on a logarithmic axis, and the cosine of a net's vectors with the best ones.

    Args:
        rows: of the history ``log_prob_theory``.
        title: of the figure.
        section: what the tags begin with.

    Returns:
        The figure, two panels over optimizer steps; one without a defined value says n/a.

    Example:
        >>> row = {"step": 0, "epoch": 0, "name": "", "values": {"theory/kl": 0.1}}
        >>> [len(ax.lines) for ax in theory_figure([row]).axes]
        [1, 0]
    """
    figure = Figure(figsize=(13.0, _HEIGHT), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(title, fontsize=LARGE, fontweight="bold", color=INK)
    dress(left, "Divergence", "mean KL (nats)", "optimizer steps", log=True)
    dress(right, "Vectors against the best ones", "mean cosine", "optimizer steps")
    for ax, lines in ((left, _DIVERGENCES), (right, _COSINE)):
        whole_numbers_across(ax)
        _draw(ax, rows, section, lines)
    return figure


def _draw(ax: Axes, rows: Sequence[Row], section: str, lines: Sequence[_Line]) -> None:
    ends: list[EndLabel] = []
    for line in lines:
        curve = series(rows, f"{section}/{line.tag}", "step")
        values = drawable(curve.values(), log=ax.get_yscale() == "log")
        if all(value != value for value in values):
            continue
        dots = 4 if len(values) <= 15 else 0
        ax.plot(
            list(curve),
            values,
            color=line.color,
            linestyle=line.style,
            linewidth=2.2,
            marker="o",
            markersize=dots,
        )
        show_place(ax, list(curve)[-1], values)
        text = f"{line.text} {number_text(values[-1])}"
        ends.append(EndLabel(last_finite(values), text, line.color))
    if not ends:
        not_applicable(ax)
        return
    ax.set_xlim(min(ax.dataLim.x0, 0), max(ax.dataLim.x1, 1))
    mark_ends(ax, ends, height=_HEIGHT * 72 * 0.75)
