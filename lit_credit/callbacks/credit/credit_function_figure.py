"""Drawing what the credit does to the loss, beside what the gradient does."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_credit.plotting._style import GREY, INK, SMALL
from lit_credit.plotting.layer_curves import draw_layers
from lit_credit.runs.history import Row

__all__ = ["credit_function_figure"]

_HEIGHT = 3.4


def credit_function_figure(rows: Sequence[Row], section: str, names: Sequence[str]) -> Figure:
    """Draw the ratio of the falls of the loss, and the correlation, over epochs.

    Both are 1 under backpropagation and 0 for a random credit; lines mark these values.

    Args:
        rows: rows of a history.
        section: first part of the tags.
        names: names of the units, in the order of their tags.
    """
    figure = Figure(figsize=(7.5, 2 * _HEIGHT), layout="constrained")
    upper, lower = figure.subplots(2, sharex=False)
    for ax, tag, title, ylabel in (
        (
            upper,
            "ratio",
            "Does a step along the credit lower the loss?",
            "fall of the loss, over\nthat along the gradient",
        ),
        (
            lower,
            "rho",
            "Does the credit predict the change of the loss?",
            "correlation over\nrandom directions",
        ),
    ):
        _references(ax)
        draw_layers(
            ax,
            rows,
            f"{section}/{tag}/",
            names=names,
            ylabel=ylabel,
            title=title,
            log=False,
            height=_HEIGHT,
        )
    return figure


def _references(ax: Axes) -> None:
    """Lines at 1 and 0, which the axis always shows, with their names below."""
    ax.update_datalim([(0.0, -0.12), (0.0, 1.02)])
    for y, text in ((1.0, "gradient"), (0.0, "random")):
        ax.axhline(y, color=INK if y else GREY, linestyle="--", linewidth=1.2, zorder=1)
        ax.annotate(
            text,
            (0.01, y),
            xycoords=("axes fraction", "data"),
            xytext=(0, -14),
            textcoords="offset points",
            fontsize=SMALL,
            color=INK if y else GREY,
        )
