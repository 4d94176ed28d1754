"""The same four quantities under several rules."""

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lit_credit.functional import geometric_mean, growth, mean_and_sd
from lit_credit.plotting._style import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    EndLabel,
    drawable,
    dress,
    factor_text,
    mark_ends,
    not_applicable,
    whole_numbers_across,
)
from lit_credit.utils.history import Row
from lit_credit.utils.series import Curve, Histories, layer_tags, run_curve, series

__all__ = ["comparison_figure"]

_RULES = {"BP": BLUE, "FA": GREEN, "BlockFA": PURPLE, "DFA": ORANGE, "FrozenUnits": GREY}
_SPARE = [AMBER, SKY, INK, *_RULES.values()]
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
    _Panel("accuracy", "Accuracy", "fraction correct, validation data"),
)
_LOSS = _Panel("loss", "Loss", "mean over validation data")


def comparison_figure(runs: Mapping[str, Sequence[Histories]], title: str = "") -> Figure:
    """Stream, gradient, credit cosine and accuracy over epochs, one colour a rule.

    Where no run has an accuracy the last panel is the validation loss.

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
    colors = _colors(list(runs))
    scored = any(run_curve(seed, "accuracy") for seeds in runs.values() for seed in seeds)
    panels = _PANELS if scored else (*_PANELS[:-1], _LOSS)
    for ax, panel in zip(figure.subplots(2, 2).flat, panels, strict=True):
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


def _draw(
    ax: Axes, panel: _Panel, runs: Mapping[str, Sequence[Histories]], colors: Mapping[str, str]
) -> None:
    log = bool(panel.layers)
    dress(ax, panel.title, panel.ylabel, "epochs of training", log=log)
    whole_numbers_across(ax)
    ends: list[EndLabel] = []
    for label, seeds in runs.items():
        curves = [curve for seed in seeds if (curve := run_curve(seed, panel.quantity))]
        mean = _over_seeds(ax, curves, colors[label], log)
        if not mean:
            continue
        ends.append(EndLabel(mean[-1], f"{label}  {_end_text(curves, log)}", colors[label]))
        if log:
            rows = [seed.get(panel.history, []) for seed in seeds]
            _thin_layers(ax, rows, panel.layers, colors[label])
    if not ends:
        not_applicable(ax)
        return
    ax.set_xlim(0, max(ax.dataLim.x1, 1))
    if not log and panel is not _LOSS:
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, 0.0), max(high, 1.0))
    mark_ends(ax, ends, height=_SIZE[1] * 72 * 0.35)


def _over_seeds(ax: Axes, curves: Sequence[Curve], color: str, log: bool) -> list[float]:
    """Draw band and mean, and return the mean where it can be drawn."""
    gathered = _gather(curves)
    epochs = list(gathered)
    mean = drawable((_mean(values, log) for values in gathered.values()), log=log)
    if not (shown := [value for value in mean if value == value]):
        return []
    # Where one seed has no defined value neither mean nor band is drawn.
    band = [v if m == m else [math.nan] for v, m in zip(gathered.values(), mean, strict=True)]
    low, high = [min(v) for v in band], [max(v) for v in band]
    ax.fill_between(epochs, low, high, color=color, alpha=0.2, linewidth=0)
    dots = 4 if len(epochs) <= 15 else 0
    ax.plot(epochs, mean, color=color, linewidth=2.4, marker="o", markersize=dots, zorder=3)
    return shown


def _thin_layers(ax: Axes, seeds: Sequence[Sequence[Row]], prefix: str, color: str) -> None:
    for tag in layer_tags([row for rows in seeds for row in rows], prefix)[:-1]:
        gathered = _gather([series(rows, tag) for rows in seeds])
        mean = drawable((_mean(values, True) for values in gathered.values()), log=True)
        ax.plot(list(gathered), mean, color=color, linewidth=0.8, alpha=0.45, zorder=2)


def _gather(curves: Sequence[Curve]) -> dict[int, list[float]]:
    """The values of all runs that got as far, by epoch."""
    epochs = sorted({epoch for curve in curves for epoch in curve})
    return {epoch: [curve[epoch] for curve in curves if epoch in curve] for epoch in epochs}


def _mean(values: Sequence[float], log: bool) -> float:
    return geometric_mean(values).item() if log else mean_and_sd(values).mean.item()


def _end_text(curves: Sequence[Curve], log: bool) -> str:
    last = mean_and_sd([curve[max(curve)] for curve in curves]).mean
    if log:
        first = mean_and_sd([curve.get(0, math.nan) for curve in curves]).mean
        return factor_text(growth(last, first).item())
    return "n/a" if last.isnan() else f"{last.item():.2f}"


def _colors(labels: Sequence[str]) -> dict[str, str]:
    """A rule's own colour for its first label, the spare ones for all others."""
    colors: dict[str, str] = {}
    for label in labels:
        own = _RULES.get(label.split(" (")[0])
        free = [color for color in (own, *_SPARE) if color and color not in colors.values()]
        colors[label] = free[0] if free else _SPARE[len(colors) % len(_SPARE)]
    return colors
