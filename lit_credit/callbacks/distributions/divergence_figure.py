"""The figure of ``ExactDivergence``: how a known distribution is learned."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_credit.plotting._runs import over_runs, run_colors
from lit_credit.plotting._style import (
    GREY,
    INK,
    LARGE,
    SMALL,
    EndLabel,
    dress,
    last_finite,
    mark_ends,
    not_applicable,
    whole_numbers_across,
)
from lit_credit.plotting.ranges import fit_range
from lit_credit.runs.history import Row
from lit_credit.runs.series import series
from lit_credit.utils.numbers import number_text

__all__ = ["divergence_figure"]

_HEIGHT = 4.0


class _Panel(NamedTuple):
    tag: str
    title: str
    ylabel: str
    levels: Sequence[tuple[str, str]]
    """Tags of constants, and the texts beside their lines."""
    reach: tuple[float, float] | None = None


_PANELS = (
    _Panel("kl", "Divergence", "mean KL (nats)", [("kl_uniform", "uniform guess")]),
    _Panel("accuracy", "Accuracy", "expected top-1", [("accuracy_max", "best there is")], (0, 1)),
    _Panel(
        "memorized",
        "Memorized",
        "contexts",
        [("contexts", "all"), ("memorized_bound", "lower bound")],
        (0, 0),
    ),
)


def divergence_figure(
    runs: Mapping[str, Sequence[Sequence[Row]]],
    *,
    title: str = "",
    section: str = "divergence",
    colors: Mapping[str, str] | None = None,
) -> Figure:
    """Draw divergence, accuracy and memorized contexts over steps, with dashed bounds.

    Lines are means over seeds, bands reach from the smallest to the largest seed. The divergence
    has a logarithmic axis and a geometric mean.

    Args:
        runs: label of an experiment to the histories ``exact_divergence`` of its runs, one per
            seed.
        title: title of the figure.
        section: prefix of the tags.
        colors: colours of some labels; the other labels get spare colours.

    Returns:
        The figure, three panels; one says n/a if no run has measured it.

    Example:
        >>> row = {"step": 0, "epoch": 0, "name": "", "values": {"divergence/kl": 0.1}}
        >>> [len(ax.lines) for ax in divergence_figure({"BP": [[row]]}).axes]
        [1, 0, 0]
    """
    figure = Figure(figsize=(11.5, _HEIGHT), layout="constrained")
    color = run_colors(list(runs), colors)
    for ax, panel in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        log = panel.tag == "kl"
        dress(ax, panel.title, panel.ylabel, "optimizer steps", log=log)
        whole_numbers_across(ax, most=4)
        ends: list[EndLabel] = []
        for label, seeds in runs.items():
            curves = [c for rows in seeds if (c := series(rows, f"{section}/{panel.tag}", "step"))]
            if mean := over_runs(ax, curves, color[label], log):
                name = label if len(runs) > 1 else ""
                text = f"{name} {_short(mean[-1])}".strip()
                ends.append(EndLabel(last_finite(mean), text, color[label]))
        if not ax.lines:
            not_applicable(ax)
            continue
        _draw_levels(ax, panel, section, [rows for seeds in runs.values() for rows in seeds])
        ax.set_xlim(min(ax.dataLim.x0, 0), max(ax.dataLim.x1, 1))
        fit_range(ax, reach=panel.reach)
        mark_ends(ax, ends, height=_HEIGHT * 72 * 0.75)
    figure.suptitle(title, fontsize=LARGE, fontweight="bold", color=INK)
    return figure


def _draw_levels(ax: Axes, panel: _Panel, section: str, runs: Sequence[Sequence[Row]]) -> None:
    for tag, text in panel.levels:
        values = {v for rows in runs for v in series(rows, f"{section}/{tag}", "step").values()}
        level = values.pop() if len(values) == 1 else math.nan  # else there is not one level
        if math.isfinite(level):
            ax.axhline(level, color=GREY, linestyle="--", linewidth=1.2, zorder=1)
            ax.annotate(
                f"{text} {_short(level)}",
                (0.98, level),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                va="bottom",
                fontsize=SMALL,
                color=GREY,
            )


def _short(value: float) -> str:
    """A number with three digits; from 1000 on with all digits, for counts."""
    return f"{value:,.0f}" if value >= 1000 else number_text(value)
