"""The figure of a comparison: quantities over epochs, one colour per rule."""

import math
from collections.abc import Mapping, Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lit_credit.comparison.known import our_quantities, rule_colors
from lit_credit.comparison.quantities import Quantity
from lit_credit.functional import growth, mean_and_sd
from lit_credit.headlines import Panel
from lit_credit.plotting._runs import by_place, mean_of, over_runs
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
from lit_credit.runs.series import Curve, Histories, layer_tags, series

__all__ = ["comparison_figure"]

_WIDTH, _ROW = 12.0, 4.2
"""Width of the figure and height of a row of panels, in inches."""


def comparison_figure(
    runs: Mapping[str, Sequence[Histories]],
    title: str = "",
    *,
    quantities: Sequence[Quantity] | None = None,
    colors: Mapping[str, str] | None = None,
    places: str = "epochs of training",
) -> Figure:
    """Draw quantities over epochs: one colour per rule, one panel per quantity that declares one.

    The quantities of lit_credit are the norm of the residual stream, the norm of the gradient, the
    cosine of the credit, and the accuracy. If no run has an accuracy, the last panel shows the
    error out of distribution, or else the validation loss.

    The thick line is the mean over seeds (for norms, the geometric mean). The band reaches from the
    smallest to the largest seed. Thin lines are the layers before the last. Labels end with the
    growth since epoch 0 (norms) or with the last value: arithmetic means over seeds, each seed at
    its own last epoch. A rule without a quantity is absent from its panel, an undefined value is a
    gap, and an empty panel says n/a.

    Args:
        runs: label of a rule to the histories of its runs, one run per seed.
        title: title of the figure.
        quantities: quantities to show; None takes those that classes of lit_credit declare.
        colors: colours of the labels; None takes the colours of lit_credit's rules.
        places: what ``epoch`` in the rows counts, for the x axes.

    Returns:
        The figure, four panels or more.

    Example:
        >>> row = {"step": 0, "epoch": 0, "name": "metrics", "values": {"val/accuracy": 0.1}}
        >>> figure = comparison_figure({"BP": [{"metrics": [row]}]})
        >>> [len(ax.lines) for ax in figure.axes]
        [0, 0, 0, 1]
    """
    panels = _panels(our_quantities() if quantities is None else quantities, runs)
    lines = max(math.ceil(len(panels) / 2), 1)
    size = (_WIDTH, lines * _ROW)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    colors = rule_colors(list(runs)) if colors is None else colors
    axes = list(figure.subplots(lines, 2).flat)
    for ax, (quantity, panel) in zip(axes, panels, strict=False):
        _draw(ax, quantity, panel, runs, colors, places)
    for ax in axes[len(panels) :]:
        ax.remove()
    figure.suptitle(title, fontsize=16, fontweight="bold", color=INK)
    counts = ", ".join(f"{label}: {len(seeds)}" for label, seeds in runs.items())
    figure.supxlabel(
        "Line: mean over runs (norms: geometric mean). Band: smallest to largest run. "
        "Thin: earlier layers.\n" + fill(f"Runs: {counts}.", 130),
        fontsize=SMALL,
        color=INK,
    )
    return figure


def _panels(
    quantities: Sequence[Quantity], runs: Mapping[str, Sequence[Histories]]
) -> list[tuple[Quantity, Panel]]:
    """The panels in order; of panels that share a slot, the first measured one, or the first."""
    declared = [(q, panel) for q in quantities if (panel := q.headline.panel) is not None]
    slots: dict[str, list[tuple[Quantity, Panel]]] = {}
    for index, entry in enumerate(sorted(declared, key=lambda entry: entry[1].order)):
        slots.setdefault(entry[1].slot or str(index), []).append(entry)
    return [
        next((entry for entry in entries if _measured(runs, entry[0])), entries[0])
        for entries in slots.values()
    ]


def _measured(runs: Mapping[str, Sequence[Histories]], quantity: Quantity) -> bool:
    return any(quantity.curve(seed) for seeds in runs.values() for seed in seeds)


def _draw(
    ax: Axes,
    quantity: Quantity,
    panel: Panel,
    runs: Mapping[str, Sequence[Histories]],
    colors: Mapping[str, str],
    places: str,
) -> None:
    dress(ax, panel.title, panel.ylabel, places, log=panel.log)
    whole_numbers_across(ax)
    ends: list[EndLabel] = []
    for label, seeds in runs.items():
        curves = [curve for seed in seeds if (curve := quantity.curve(seed))]
        mean = over_runs(ax, curves, colors[label], panel.log)
        if not mean:
            continue
        text = f"{label}  {_end_text(curves, panel.log)}"
        ends.append(EndLabel(last_finite(mean), text, colors[label]))
        if panel.log and quantity.headline.layers:
            _thin_layers(ax, quantity, seeds, colors[label])
    if not ends:
        not_applicable(ax)
        return
    ax.set_xlim(0, max(ax.dataLim.x1, 1))
    if panel.reach is not None and not panel.log:
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, panel.reach[0]), max(high, panel.reach[1]))
    mark_ends(ax, ends, height=2 * _ROW * 72 * 0.35)


def _thin_layers(ax: Axes, quantity: Quantity, runs: Sequence[Histories], color: str) -> None:
    seeds = [run.get(quantity.history, []) for run in runs]
    prefix = next(f"{tag}/" for run in runs if (tag := quantity.tag(run)))
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
