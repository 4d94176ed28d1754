"""The figure of a sweep: quantities at the end of training over a numeric factor."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from lit_credit.comparison.figure import new_panels, write_caption
from lit_credit.comparison.groups import Group
from lit_credit.comparison.highlights import MUTED, colors_of, highlighted, shortened_label
from lit_credit.comparison.labels import RULE, key_texts, value_text
from lit_credit.comparison.quantities import Quantity, ends_of, spread_of
from lit_credit.functional import geometric_mean
from lit_credit.headlines import Panel
from lit_credit.plotting._style import (
    EndLabel,
    dress,
    last_finite,
    mark_ends,
    not_applicable,
    verbatim,
)

__all__ = ["factor_figure", "numeric_factor"]

_FEWEST = 3
"""Smallest number of values of a factor that is drawn as an axis."""
_HEIGHT = 4.2 * 72 * 0.7


@dataclass
class _Series:
    """The groups that differ only by the factor: factor to group."""

    label: str
    rule: str
    groups: dict[float, Group] = field(default_factory=dict)


def numeric_factor(groups: Mapping[str, Group]) -> str | None:
    """The key of the configuration that takes the most numbers, if it takes three or more."""
    keys = dict.fromkeys(key for group in groups.values() for key in group.shown)
    counts = {key: len(set(_numbers(groups, key))) for key in keys}
    best = max(counts, key=lambda key: counts[key], default="")
    return best if counts.get(best, 0) >= _FEWEST else None


def _numbers(groups: Mapping[str, Group], key: str) -> list[float]:
    """The values of a key; none if one of them is not a number."""
    values = [group.config[key] for group in groups.values() if key in group.config]
    return [float(value) for value in values] if all(map(_is_number, values)) else []


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def factor_figure(
    groups: Mapping[str, Group],
    key: str,
    panels: Sequence[tuple[Quantity, Panel]],
    colors: Mapping[str, str | None],
    title: str = "",
) -> Figure:
    """Draw quantities at the end of training over a factor: one line per rule.

    Groups that differ in other keys too have a line for each combination of these. The point is the
    mean over seeds (of logarithmic quantities, the geometric mean), the band reaches from the
    smallest to the largest seed.

    Args:
        groups: groups by label.
        key: key of the factor, see :func:`numeric_factor`.
        panels: quantities and their panels.
        colors: colours of the rules, by name.
        title: title of the figure.
    """
    lines = _series(groups, key)
    first = panels[0][0] if panels else None
    judged = next((q for q, _ in panels if q.headline.better != "neither"), first)
    better = judged.headline.better if judged else "neither"
    shown = highlighted({line.label: _best(line, judged, better) for line in lines}, better)
    wanted = {line.label: colors.get(line.rule) for line in lines if line.label in shown}
    own = colors_of([line.label for line in lines], shown, wanted)
    figure, axes = new_panels(len(panels), title, shown)
    name = key_texts([key])[key]
    for ax, (quantity, panel) in zip(axes, panels, strict=True):
        _draw(ax, quantity, panel, lines, own, name)
    caption = ["Point: mean over runs at the end of training. Band: smallest to largest run."]
    if len(shown) < len(lines):
        caption.append(f"Grey: the other {len(lines) - len(shown)} of {len(lines)} lines.")
    write_caption(figure, caption)
    return figure


def _series(groups: Mapping[str, Group], key: str) -> list[_Series]:
    found: dict[str, _Series] = {}
    keys = dict.fromkeys(k for group in groups.values() for k in group.shown if k != key)
    texts = key_texts(list(keys))
    for group in groups.values():
        if key not in group.config:
            continue
        rules = dict.fromkeys(run.rule for run in group.runs)
        rule = next(iter(rules)) if len(rules) == 1 else "all rules"
        parts = [
            f"{texts[k]}={value_text(group.config[k])}"
            for k in keys
            if k != RULE and k in group.shown and k in group.config
        ]
        label = verbatim(" ".join([rule, *parts]))
        line = found.setdefault(label, _Series(label, rule))
        line.groups.setdefault(float(group.config[key]), group)
    for line in found.values():
        line.groups = dict(sorted(line.groups.items()))
    return list(found.values())


def _best(line: _Series, quantity: Quantity | None, better: str) -> float:
    if quantity is None:
        return math.nan
    means = [spread_of(ends_of(group.runs, quantity)).mean for group in line.groups.values()]
    known = [mean for mean in means if not math.isnan(mean)]
    return (min if better == "down" else max)(known, default=math.nan)


def _draw(
    ax: Axes,
    quantity: Quantity,
    panel: Panel,
    lines: Sequence[_Series],
    colors: Mapping[str, str],
    name: str,
) -> None:
    dress(ax, panel.title, panel.ylabel, name, log=panel.log)
    ends: list[EndLabel] = []
    for line in lines:
        points = {x: ends_of(group.runs, quantity) for x, group in line.groups.items()}
        points = {x: values for x, values in points.items() if _drawable(values, panel.log)}
        if not points:
            continue
        color, muted = colors[line.label], colors[line.label] == MUTED
        means = [_mean(values, panel.log) for values in points.values()]
        places, seeds = list(points), list(points.values())
        style: dict[str, Any] = {"linewidth": 1.0, "zorder": 1}
        style = style if muted else {"linewidth": 2.4, "marker": "o"}
        ax.plot(places, means, color=color, **style)
        if not muted:
            ends_of_band = [min(values) for values in seeds], [max(values) for values in seeds]
            ax.fill_between(places, *ends_of_band, color=color, alpha=0.2, linewidth=0)
            text = shortened_label(line.label)
            ends.append(EndLabel(last_finite(means), text, color))
    if not ax.lines:
        not_applicable(ax)
        return
    _scale_factor(ax, [x for line in lines for x in line.groups])
    if panel.reach is not None and not panel.log:
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, panel.reach[0]), max(high, panel.reach[1]))
    mark_ends(ax, ends, height=_HEIGHT)


def _drawable(values: Sequence[float], log: bool) -> bool:
    return bool(values) and all(math.isfinite(x) and (x > 0 or not log) for x in values)


def _mean(values: Sequence[float], log: bool) -> float:
    return geometric_mean(values).item() if log else spread_of(values).mean


def _scale_factor(ax: Axes, values: Sequence[float]) -> None:
    """Make the axis of a factor logarithmic if its values span a decade or more."""
    positive = [x for x in values if x > 0]
    if not positive or max(positive) < 10 * min(positive) or min(values) < 0:
        return
    if min(values) == 0:
        ax.set_xscale("symlog", linthresh=min(positive), linscale=0.5)
        return
    ax.set_xscale("log")
    if max(positive) < 1000 * min(positive):
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
