"""The figure of ``CircuitMatching``: copying errors and matches of circuits over steps."""

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import NullLocator

from lit_credit.callbacks.heads.circuit_levels import at_distance, match_ranks
from lit_credit.plotting._runs import over_runs, run_colors
from lit_credit.plotting._style import (
    GREY,
    INK,
    SMALL,
    EndLabel,
    dress,
    last_finite,
    mark_ends,
    not_applicable,
    whole_numbers_across,
)
from lit_credit.plotting.ranges import fit_range
from lit_credit.runs.series import Histories, series
from lit_credit.utils.numbers import number_text

__all__ = ["circuit_figure"]

_ERRORS = 2
"""Panels of errors, which only runs that copy have."""

_AXES, _ROW, _LETTER = 3.9, 3.7, 0.095
"""Width of an axes, height of a row of panels, and width of a label's letter, in inches."""


class _Curve(NamedTuple):
    """One curve of a panel, from one or several runs of an experiment."""

    seeds: Sequence[Histories]
    tag: str
    color: str
    label: str


class _Panel(NamedTuple):
    title: str
    ylabel: str
    curves: Sequence[_Curve]
    limits: tuple[float, float] | None = None
    null: Sequence[tuple[str, str, str]] = ()
    """Tags of the level and spread of a null model, and the colour of its curve."""


def circuit_figure(
    runs: Mapping[str, Sequence[Histories]],
    rank: int | None = None,
    *,
    log_steps: bool = False,
    title: str = "",
    section: str = "circuits",
    colors: Mapping[str, str] | None = None,
    distance: int = 0,
) -> Figure:
    """Draw errors, and the match of QK circuits with earlier OV circuits, over steps.

    There are six panels: errors out of and in distribution, if a run has copied; the diagonal
    score z of the best pair of heads; the match of their subspaces; the token mismatch; the match
    of the embedding's subspace with that of the first layer's OV circuits. Lines are means over
    seeds, bands reach from the smallest to the largest seed. Dashed lines are the level of
    unrelated circuits; bands around them reach two of their standard deviations to each side. A
    quantity that no run has measured says n/a.

    Args:
        runs: label of an experiment to the histories of its runs, one run per seed: ``metrics`` and
            ``circuit_matching``.
        rank: rank of the subspaces. None draws all ranks of a single experiment; for several
            experiments it takes the rank nearest to 10.
        log_steps: draw steps on a logarithmic axis.
        title: title of the figure.
        section: prefix of the tags of ``circuit_matching``.
        colors: colours of some labels; the other labels get spare colours.
        distance: positions between query and key, one of those that ``CircuitMatching`` measured.

    Returns:
        The figure: the panels, two in a row, each curve with its label, and a caption.

    Example:
        >>> row = {"step": 0, "epoch": 0, "name": "", "values": {"circuits/z/best": 0.1}}
        >>> figure = circuit_figure({"BP": [{"circuit_matching": [row]}]})
        >>> [len(ax.lines) for ax in figure.axes[:4]]
        [1, 0, 0, 0]
    """
    color = run_colors(list(runs), colors)
    panels = _panels(runs, rank, section, color, f"{section}/{at_distance(distance)}")
    rows = [row for seeds in runs.values() for s in seeds for row in s.get("metrics", [])]
    if not any("val/ood_error" in row["values"] for row in rows):
        panels = panels[_ERRORS:]  # the task is not copying
    figure, axes = _new_panels(len(panels), runs)
    for ax, panel in zip(axes, panels, strict=True):
        _draw(ax, panel, log_steps)
    figure.supxlabel(_caption(runs), fontsize=SMALL, color=INK)
    figure.suptitle(title, fontsize=16, fontweight="bold", color=INK)
    return figure


def _new_panels(count: int, runs: Mapping[str, Sequence[Histories]]) -> tuple[Figure, list[Axes]]:
    """A figure with two panels in a row, and room for labels beside them."""
    lines = math.ceil(count / 2)
    letters = max((len(label) for label in runs), default=0) if len(runs) > 1 else 7
    size = 2 * (_AXES + _LETTER * (letters + 7)), lines * _ROW + 0.8
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    axes = list(figure.subplots(lines, 2, squeeze=False).flat)
    for ax in axes[count:]:
        ax.remove()
    return figure, axes[:count]


def _caption(runs: Mapping[str, Sequence[Histories]]) -> str:
    counts = ", ".join(f"{label}: {len(seeds)}" for label, seeds in runs.items())
    return (
        "Line: mean over runs. Band: smallest to largest run. Dashed: unrelated circuits, "
        f"with 2 sd to each side.\n{fill(f'Runs: {counts}.', 120)}"
    )


def _panels(
    runs: Mapping[str, Sequence[Histories]],
    rank: int | None,
    section: str,
    colors: Mapping[str, str],
    place: str,
) -> list[_Panel]:
    rows = [row for seeds in runs.values() for s in seeds for row in s.get("circuit_matching", [])]
    ranks = match_ranks(rows, section) if rank is None else [rank]
    ranks = sorted(ranks) if len(runs) == 1 else ranks[:1]

    def of_runs(tag: str) -> list[_Curve]:
        return [_Curve(s, tag, colors[r], r if len(runs) > 1 else "") for r, s in runs.items()]

    def of_ranks(tag: str) -> list[_Curve]:
        if len(runs) != 1:
            return [curve for r in ranks for curve in of_runs(tag.format(r))]
        (seeds,) = runs.values()
        shades = [to_hex(mpl.colormaps["viridis"](x)) for x in np.linspace(0.8, 0, len(ranks))]
        return [
            _Curve(seeds, tag.format(r), shade, f"rank {r}")
            for r, shade in zip(ranks, shades, strict=True)
        ]

    match, embedding = (
        of_ranks(tag)
        for tag in (
            place + "match_rms/R{:02d}/best",
            section + "/embedding_rms/R{:02d}/mean",
        )
    )
    null = [
        (f"{section}/match_rms/R{r:02d}/null", f"{section}/null_sd/match_rms/R{r:02d}", curve.color)
        for r, curve in zip(ranks, match, strict=False)
    ]
    if len(runs) > 1:
        null = [(mean, sd, GREY) for mean, sd, _ in null]
    at = f", rank {ranks[0]}" if len(ranks) == 1 else ""
    rms = f"rms of cosines{at}"
    return [
        _Panel(
            "Errors out of distribution",
            "share of copied symbols",
            of_runs("val/ood_error"),
            (0.0, 1.0),
        ),
        _Panel(
            "Errors in distribution", "share of copied symbols", of_runs("val/id_error"), (0.0, 1.0)
        ),
        _Panel(
            "Diagonal of $W_{QK} W_{OV}$",
            "score z, best pair",
            of_runs(f"{place}z/best"),
            null=[(f"{section}/z/null", f"{section}/null_sd/z", GREY)],
        ),
        _Panel("Keys read by QK against OV's output", f"{rms}, best pair", match, (0.0, 1.0), null),
        _Panel(
            "Symbols that do not find themselves",
            "token mismatch, best pair",
            of_runs(f"{place}mismatch/best"),
            (0.0, 1.0),
        ),
        _Panel("Embedding against first layer's OV", f"{rms}, mean", embedding, (0.0, 1.0), null),
    ]


def _draw(ax: Axes, panel: _Panel, log_steps: bool) -> None:
    dress(ax, panel.title, panel.ylabel, "optimizer steps")
    if log_steps:
        _logarithmic(ax, panel)
    else:
        whole_numbers_across(ax)
    ends: list[EndLabel] = []
    for curve in panel.curves:
        found = [c for seed in curve.seeds if (c := _series(seed, curve.tag))]
        if mean := over_runs(ax, found, curve.color):
            text = f"{curve.label}  {number_text(mean[-1], '.2f')}".strip()
            ends.append(EndLabel(last_finite(mean), text, curve.color))
    if not ax.lines:
        not_applicable(ax)
        return
    for mean_tag, sd_tag, color in panel.null:
        _draw_null(ax, panel.curves[0].seeds, mean_tag, sd_tag, color)
    ax.set_xlim(0, max(ax.dataLim.x1, 1))
    if panel.limits is not None:
        ax.set_ylim(*panel.limits)
    else:
        fit_range(ax, span=1.0)
    mark_ends(ax, ends, height=_ROW * 72 * 0.68)


def _draw_null(ax: Axes, seeds: Sequence[Histories], mean: str, sd: str, color: str) -> None:
    """Draw the level of unrelated circuits, and two standard deviations to each side."""
    sds = [v for seed in seeds for v in _series(seed, sd).values()]
    means = [v for seed in seeds for v in _series(seed, mean).values()]
    if means and math.isfinite(means[0]):
        ax.axhline(means[0], color=color, linestyle="--", linewidth=1.2, zorder=1)
    if means and sds and math.isfinite(means[0]) and math.isfinite(sds[0]):
        low, high = means[0] - 2 * sds[0], means[0] + 2 * sds[0]
        ax.axhspan(low, high, color=color, alpha=0.15, linewidth=0, zorder=0)


def _series(histories: Histories, tag: str) -> dict[int, float]:
    file = "metrics" if tag.startswith("val/") else "circuit_matching"
    return series(histories.get(file, []), tag, by="step")


def _logarithmic(ax: Axes, panel: _Panel) -> None:
    """Make the axis of steps logarithmic, except from 0 to the first measurement."""
    steps = [s for c in panel.curves for seed in c.seeds for s in _series(seed, c.tag) if s > 0]
    first, last = min(steps, default=1), max(steps, default=1)
    ax.set_xscale("symlog", linthresh=first, linscale=0.4)
    powers = [10**n for n in range(len(str(last))) if 10**n >= first]
    ax.set_xticks([0, *powers], ["0", *(f"$10^{{{round(math.log10(p))}}}$" for p in powers)])
    ax.xaxis.set_minor_locator(NullLocator())
