"""The figure of a comparison: quantities over epochs, one colour per group."""

import math
from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lit_credit.comparison.highlights import MUTED, colors_of, highlighted, shortened_label
from lit_credit.comparison.known import our_quantities, rule_colors
from lit_credit.comparison.quantities import Quantity, spread_of
from lit_credit.functional import growth
from lit_credit.headlines import Panel
from lit_credit.plotting._runs import mean_and_band, over_lines
from lit_credit.plotting._style import (
    INK,
    SMALL,
    EndLabel,
    dress,
    factor_text,
    last_finite,
    mark_ends,
    not_applicable,
    show_place,
    whole_numbers_across,
)
from lit_credit.plotting.ranges import fit_range
from lit_credit.runs.columns import Line
from lit_credit.runs.series import Histories, layer_tags, line_of
from lit_credit.utils.numbers import number_text

__all__ = [
    "MOST_PANELS",
    "comparison_figure",
    "new_panels",
    "panels_of",
    "ranking",
    "write_caption",
]

MOST_PANELS = 12
_WIDEST = 12.0
"""Inches beyond which a line of the caption is no longer read with ease."""
_AXES, _ROW, _LETTER = 4.6, 4.2, 0.095
"""Width of an axes, height of a row of panels, and width of a letter, in inches."""

Runs = Mapping[str, Sequence[Histories]]


def comparison_figure(
    runs: Runs,
    title: str = "",
    *,
    quantities: Sequence[Quantity] | None = None,
    colors: Mapping[str, str | None] | None = None,
    places: str = "epochs of training",
    always: Sequence[str] = (),
) -> Figure:
    """Draw quantities over epochs: one colour per group, one panel per quantity that declares one.

    The quantities of lit_credit are the norm of the residual stream, the norm of the gradient, the
    cosine of the credit, and the accuracy. If no run has an accuracy, the last panel shows the
    error out of distribution, or else the validation loss. A quantity that no run has measured has
    no panel.

    The thick line is the mean over seeds (for norms, the geometric mean). The band reaches from the
    smallest to the largest seed. Thin lines are the layers before the last. Labels end with the
    growth since epoch 0 (norms) or with the last value: arithmetic means over seeds, each seed at
    its own last epoch. A group without a quantity is absent from its panel, and an undefined value
    is a gap. Of more than eight groups, the best three and the worst three are in colour, by the
    first quantity of which large or small values are better; the others are grey.

    Args:
        runs: label of a group to the histories of its runs, one run per seed.
        title: title of the figure.
        quantities: quantities to show; None takes those that classes of lit_credit declare.
        colors: colours that the labels want; several labels of one colour get tints of it. None
            takes the colours of lit_credit's rules.
        places: what ``epoch`` in the rows counts, for the x axes.
        always: labels that are in colour even if there are many.

    Returns:
        The figure.

    Example:
        >>> row = {"step": 0, "epoch": 0, "name": "metrics", "values": {"val/accuracy": 0.1}}
        >>> figure = comparison_figure({"BP": [{"metrics": [row]}]})
        >>> [len(ax.lines) for ax in figure.axes]
        [1]
    """
    known = our_quantities() if quantities is None else quantities
    panels = panels_of(known, runs)
    shown = highlighted(*ranking(known, runs), always)
    wanted = _colors_of_rules(runs) if colors is None else colors
    own = colors_of(list(runs), shown, {label: wanted.get(label) for label in shown})
    figure, axes = new_panels(len(panels), title, shown)
    for ax, (quantity, panel) in zip(axes, panels, strict=True):
        _draw(ax, quantity, panel, runs, own, places)
    write_caption(figure, _caption(runs, shown))
    return figure


def _colors_of_rules(runs: Runs) -> dict[str, str | None]:
    rules = rule_colors({label.partition(" ")[0]: None for label in runs})
    return {label: rules[label.partition(" ")[0]] for label in runs}


def new_panels(count: int, title: str, labels: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """A figure with room for panels and for labels beside them."""
    columns = min(count, 2)
    lines = math.ceil(count / columns)
    letters = max((len(shortened_label(label)) for label in labels), default=0) + 8
    size = columns * (_AXES + _LETTER * letters), lines * _ROW + 0.6
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for ax in axes[count:]:
        ax.remove()
    figure.suptitle(title, fontsize=16, fontweight="bold", color=INK)
    return figure, axes[:count]


def panels_of(quantities: Sequence[Quantity], runs: Runs) -> list[tuple[Quantity, Panel]]:
    """The panels in order, without those that no run has measured.

    Of panels that share a slot, the first is taken. If nothing was measured, there is one panel.
    """
    declared = [(q, panel) for q in quantities if (panel := q.headline.panel) is not None]
    declared.sort(key=lambda entry: entry[1].order)
    slots: dict[str, tuple[Quantity, Panel]] = {}
    for index, (quantity, panel) in enumerate(declared):
        slot = panel.slot or str(index)
        if slot not in slots and _is_measured(runs, quantity):
            slots[slot] = quantity, panel
    return list(slots.values())[:MOST_PANELS] or declared[:1]


def _is_measured(runs: Runs, quantity: Quantity) -> bool:
    return any(len(quantity.line(seed).places) for seeds in runs.values() for seed in seeds)


def ranking(quantities: Sequence[Quantity], runs: Runs) -> tuple[dict[str, float], str]:
    """The mean at the end by which groups are ranked, and which direction is better."""
    judged = [q for q in quantities if q.headline.better != "neither"]
    for quantity in [*judged, *quantities]:
        if _is_measured(runs, quantity):
            ends = {label: _end(quantity, seeds) for label, seeds in runs.items()}
            return ends, quantity.headline.better
    return dict.fromkeys(runs, math.nan), "neither"


def _end(quantity: Quantity, seeds: Sequence[Histories]) -> float:
    lines = [line for seed in seeds if len((line := quantity.line(seed)).places)]
    return spread_of([float(line.values[-1]) for line in lines]).mean


def write_caption(figure: Figure, lines: Sequence[str]) -> None:
    """Write lines below the panels, broken where they would leave the figure."""
    letters = int(min(figure.get_figwidth(), _WIDEST) / _LETTER)
    text = "\n".join(fill(line, letters) for line in lines)
    figure.supxlabel(text, fontsize=SMALL, color=INK)


def _caption(runs: Runs, shown: Sequence[str]) -> list[str]:
    text = "Line: mean over runs (norms: geometric mean). Band: smallest to largest run."
    if len(shown) == len(runs):
        lines = [f"{text} Thin: earlier layers."]
    else:
        lines = [text]
        lines.append(f"Grey: the other {len(runs) - len(shown)} of {len(runs)} groups.")
    sizes = {len(seeds) for seeds in runs.values()}
    if len(sizes) == 1:
        (n,) = sizes
        lines.append(f"Runs: {n} in each group." if len(runs) > 1 else f"Runs: {n}.")
    else:
        counts = ", ".join(f"{label}: {len(runs[label])}" for label in shown)
        lines.append(f"Runs: {counts}.")
    return lines


def _draw(
    ax: Axes,
    quantity: Quantity,
    panel: Panel,
    runs: Runs,
    colors: Mapping[str, str],
    places: str,
) -> None:
    dress(ax, panel.title, panel.ylabel, places, log=panel.log)
    whole_numbers_across(ax)
    ends: list[EndLabel] = []
    drawn = False
    for label, seeds in runs.items():
        lines = [line for seed in seeds if len((line := quantity.line(seed)).places)]
        if colors[label] == MUTED:
            drawn |= _draw_muted(ax, lines, panel.log)
            continue
        mean = over_lines(ax, lines, colors[label], panel.log)
        if not mean:
            continue
        text = f"{shortened_label(label)}  {_end_text(lines, panel.log)}"
        ends.append(EndLabel(last_finite(mean), text, colors[label]))
        if panel.log and quantity.headline.layers and MUTED not in colors.values():
            _thin_layers(ax, quantity, seeds, colors[label])
    if not ends and not drawn:
        not_applicable(ax)
        return
    ax.set_xlim(0, max(ax.dataLim.x1, 1))
    fit_range(ax, reach=None if panel.log else panel.reach)
    mark_ends(ax, ends, height=2 * _ROW * 72 * 0.35)


def _draw_muted(ax: Axes, lines: Sequence[Line], log: bool) -> bool:
    places, mean, _, _ = mean_and_band(lines, log)
    if np.isnan(mean).all():
        return False
    (line,) = ax.plot(places, mean, color=MUTED, linewidth=1.0, zorder=1)
    line.set_in_layout(False)
    show_place(ax, places[-1], mean.tolist())
    return True


def _thin_layers(ax: Axes, quantity: Quantity, runs: Sequence[Histories], color: str) -> None:
    seeds = [run.get(quantity.history, ()) for run in runs]
    prefix = next(f"{tag}/" for run in runs if (tag := quantity.tag(run)))
    tags = {tag: None for rows in seeds for tag in layer_tags(rows, prefix)}
    for tag in list(tags)[:-1]:
        lines = [line for rows in seeds if len((line := line_of(rows, tag)).places)]
        places, mean, _, _ = mean_and_band(lines, True)
        ax.plot(places, mean, color=color, linewidth=0.8, alpha=0.45, zorder=2)


def _end_text(lines: Sequence[Line], log: bool) -> str:
    last = spread_of([float(line.values[-1]) for line in lines]).mean
    if log:
        starts = [float(v[0]) if p[0] == 0 else math.nan for p, v in lines]
        return factor_text(growth(last, spread_of(starts).mean).item())
    return "n/a" if math.isnan(last) else number_text(last, _form(last))


def _form(value: float) -> str:
    return ".2f" if value == 0 or 0.01 <= abs(value) < 1000 else ".2g"
