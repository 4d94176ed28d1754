"""The figure of ``Sharpness``: eigenvalues over training, and the largest times the rate."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_credit.plotting._style import (
    AMBER,
    BLUE,
    INK,
    ORANGE,
    PURPLE,
    SMALL,
    EndLabel,
    drawable,
    dress,
    last_finite,
    mark_ends,
    not_applicable,
    show_place,
    whole_numbers_across,
)
from lit_credit.plotting.layer_curves import abscissa
from lit_credit.runs.history import Row
from lit_credit.runs.series import series
from lit_credit.utils.numbers import number_text

__all__ = ["sharpness_figure"]

_HEIGHT = 4.4
_RESOLVED = 0.01
_DECADES = 1e3
"""By how much less than the limit a product is shown."""


class _Curve(NamedTuple):
    tag: str
    text: str
    color: str
    style: str = "-"
    sign: int = 1


_EIGENVALUES = (
    _Curve("hessian", "Hessian", BLUE),
    _Curve("gauss_newton", "Gauss-Newton", ORANGE),
    _Curve("hessian_min", "smallest", PURPLE, "--", -1),
)
_RATE = (_Curve("times_lr", "", BLUE),)


def sharpness_figure(
    rows: Sequence[Row],
    section: str = "sharpness",
    *,
    limit: float = math.nan,
    optimizer: str = "",
) -> Figure:
    """Draw the ends of the spectrum, and the largest eigenvalue times the learning rate.

    Both axes are logarithmic. The smallest eigenvalue is drawn where it is negative, by its
    magnitude, and above 1 % of the largest one: less is not resolved.

    Args:
        rows: rows of a history.
        section: prefix of the tags.
        limit: the product at which the optimizer's steps become unstable on a quadratic loss; NaN
            if there is no such number.
        optimizer: its name, for the title.

    Returns:
        The figure: two panels, or one if no learning rate is known.

    Example:
        >>> row = {"step": 0, "epoch": 0, "name": "", "values": {"sharpness/hessian": 3.0}}
        >>> len(sharpness_figure([row]).axes)
        1
    """
    rates = series(rows, f"{section}/times_lr").values()
    panels = 2 if any(not math.isnan(rate) for rate in rates) else 1
    figure = Figure(figsize=(7.0 if panels == 1 else 10.5, _HEIGHT), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _, xlabel = abscissa(rows)
    dress(axes[0], "Curvature of the loss", "eigenvalue", xlabel, log=True)
    _draw(axes[0], rows, section, _EIGENVALUES)
    if panels == 2:
        title = f"Times the learning rate{optimizer and f' of {optimizer}'}"
        dress(
            axes[1],
            title,
            r"$\lambda_{\max}(\mathrm{Hessian}) \times$ learning rate",
            xlabel,
            log=True,
        )
        _mark_limit(axes[1], limit)
        _draw(axes[1], rows, section, _RATE, limit / _DECADES)
    return figure


def _draw(
    ax: Axes,
    rows: Sequence[Row],
    section: str,
    curves: Sequence[_Curve],
    least: float = math.nan,
) -> None:
    """Draw curves; what is below a least value stands at it."""
    by, _ = abscissa(rows)
    whole_numbers_across(ax)
    ends: list[EndLabel] = []
    for one in curves:
        curve = series(rows, f"{section}/{one.tag}", by)
        values = drawable((one.sign * value for value in curve.values()), log=True)
        if one.sign < 0:
            largest = series(rows, f"{section}/hessian", by)
            values = _resolved(values, [largest[place] for place in curve])
        values = [max(value, least) if least > 0 else value for value in values]
        dot = 4 if len(values) <= 15 else 0
        ax.plot(
            list(curve), values, one.style, color=one.color, linewidth=2, marker="o", markersize=dot
        )
        if any(value == value for value in values):
            show_place(ax, list(curve)[-1], values)
            ends.append(
                EndLabel(
                    last_finite(values),
                    _label(one, list(curve.values())[-1], values[-1]),
                    one.color,
                )
            )
    if not ends:
        for artist in (*ax.patches, *ax.lines, *ax.texts):
            artist.remove()
        not_applicable(ax)
        return
    ax.set_xlim(min(0, ax.dataLim.x0), max(ax.dataLim.x1, 1))
    mark_ends(ax, ends, height=_HEIGHT * 72 * 0.8)


def _label(curve: _Curve, last: float, shown: float) -> str:
    """Name and last value; no value of a smallest eigenvalue that is not resolved."""
    is_resolved = curve.sign > 0 or not math.isnan(shown)
    return f"{curve.text} {number_text(last, '.2g') if is_resolved else ''}".strip()


def _resolved(values: Sequence[float], largest: Sequence[float]) -> list[float]:
    pairs = zip(values, largest, strict=True)
    return [value if value >= _RESOLVED * abs(top) else math.nan for value, top in pairs]


def _mark_limit(ax: Axes, limit: float) -> None:
    """A line at the limit, and a band above it."""
    if math.isnan(limit):
        return
    ax.axhline(limit, color=INK, linestyle="--", linewidth=1.2, zorder=1)
    ax.axhspan(limit, 10 * limit, color=AMBER, alpha=0.18, zorder=0)
    ax.annotate(
        f"above {limit:.3g} gradient descent is unstable",
        (0.03, 9 * limit),
        xycoords=("axes fraction", "data"),
        va="top",
        fontsize=SMALL,
        color=INK,
    )
