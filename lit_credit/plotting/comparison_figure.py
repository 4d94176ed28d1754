"""The same four quantities under several rules."""

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lit_credit.functional import growth, mean_and_sd
from lit_credit.plotting._runs import by_place, mean_of, over_runs, run_colors
from lit_credit.plotting._style import (
    INK,
    SMALL,
    EndLabel,
    drawable,
    dress,
    factor_text,
    last_finite,
    mark_ends,
    not_applicable,
    whole_numbers_across,
)
from lit_credit.runs.history import Row
from lit_credit.runs.series import Curve, Histories, layer_tags, run_curve, series

__all__ = ["comparison_figure"]

_SIZE = (12.0, 8.4)


class _Panel(NamedTuple):
    quantity: str
    title: str
    ylabel: str
    history: str = ""
    layers: str = ""
    """File and prefix of the tags whose single layers are drawn thin, over a log axis."""


_PANELS = (
    _Panel(
        "h",
        "Residual stream at the readout, $|h_L|$",
        "L2 norm, median over samples",
        "residual_norms",
        "residual/norm/",
    ),
    _Panel(
        "g",
        r"Exact gradient there, $|g_L|$, $g_L = \partial \mathcal{L} / \partial h_L$",
        "L2 norm, median over samples",
        "gradient_norms",
        "gradient/norm/",
    ),
    _Panel("cosine", "Credit against the exact gradient", "cosine at outputs, mean over units"),
)
_LAST = (
    _Panel("accuracy", "Accuracy", "fraction correct, validation data"),
    _Panel("ood_error", "Error out of distribution", "share of copied symbols, validation data"),
    _Panel("loss", "Loss", "mean over validation data"),
)
"""The panel at the end: the first of these quantities that a run has measured."""


def comparison_figure(runs: Mapping[str, Sequence[Histories]], title: str = "") -> Figure:
    """Stream, gradient, credit cosine and accuracy over epochs, one colour a rule.

    Where no run has an accuracy the last panel is the error out of distribution, or else the
    validation loss.

    The thick line is the mean over seeds (of norms the geometric mean), the band goes from the
    smallest to the largest seed; thin lines are the layers before the last. Labels end with the
    growth since epoch 0 (norms) or with the last value, both of arithmetic means over seeds, each
    at its own end. A rule without a quantity is absent from its panel, an undefined value is a
    gap, a panel with nothing in it says n/a.

    Args:
        runs: label of a rule to the histories of its runs, one run a seed.
        title: of the figure.

    Returns:
        The figure, four panels.

    Example:
        >>> row = {"step": 0, "epoch": 0, "name": "metrics", "values": {"val/accuracy": 0.1}}
        >>> figure = comparison_figure({"BP": [{"metrics": [row]}]})
        >>> [len(ax.lines) for ax in figure.axes]
        [0, 0, 0, 1]
    """
    figure = Figure(figsize=_SIZE, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    colors = run_colors(list(runs))
    last = next((panel for panel in _LAST if _measured(runs, panel.quantity)), _LAST[0])
    for ax, panel in zip(figure.subplots(2, 2).flat, (*_PANELS, last), strict=True):
        _draw(ax, panel, runs, colors)
    figure.suptitle(title, fontsize=16, fontweight="bold", color=INK)
    counts = ", ".join(f"{label}: {len(seeds)}" for label, seeds in runs.items())
    figure.supxlabel(
        "Line: mean over runs (norms: geometric mean). Band: smallest to largest run. "
        "Thin: earlier layers.\n" + fill(f"Runs: {counts}.", 130),
        fontsize=SMALL,
        color=INK,
    )
    return figure


def _measured(runs: Mapping[str, Sequence[Histories]], quantity: str) -> bool:
    return any(run_curve(seed, quantity) for seeds in runs.values() for seed in seeds)


def _draw(
    ax: Axes, panel: _Panel, runs: Mapping[str, Sequence[Histories]], colors: Mapping[str, str]
) -> None:
    log = bool(panel.layers)
    dress(ax, panel.title, panel.ylabel, "epochs of training", log=log)
    whole_numbers_across(ax)
    ends: list[EndLabel] = []
    for label, seeds in runs.items():
        curves = [curve for seed in seeds if (curve := run_curve(seed, panel.quantity))]
        mean = over_runs(ax, curves, colors[label], log)
        if not mean:
            continue
        text = f"{label}  {_end_text(curves, log)}"
        ends.append(EndLabel(last_finite(mean), text, colors[label]))
        if log:
            rows = [seed.get(panel.history, []) for seed in seeds]
            _thin_layers(ax, rows, panel.layers, colors[label])
    if not ends:
        not_applicable(ax)
        return
    ax.set_xlim(0, max(ax.dataLim.x1, 1))
    if not log and panel.quantity != "loss":
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, 0.0), max(high, 1.0))
    mark_ends(ax, ends, height=_SIZE[1] * 72 * 0.35)


def _thin_layers(ax: Axes, seeds: Sequence[Sequence[Row]], prefix: str, color: str) -> None:
    for tag in layer_tags([row for rows in seeds for row in rows], prefix)[:-1]:
        gathered = by_place([series(rows, tag) for rows in seeds])
        mean = drawable((mean_of(values, True) for values in gathered.values()), log=True)
        ax.plot(list(gathered), mean, color=color, linewidth=0.8, alpha=0.45, zorder=2)


def _end_text(curves: Sequence[Curve], log: bool) -> str:
    last = mean_and_sd([curve[max(curve)] for curve in curves]).mean
    if log:
        first = mean_and_sd([curve.get(0, math.nan) for curve in curves]).mean
        return factor_text(growth(last, first).item())
    return "n/a" if last.isnan() else f"{last.item():.2f}"
