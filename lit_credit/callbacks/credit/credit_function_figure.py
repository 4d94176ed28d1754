"""Drawing what the credit does to the loss, beside what the gradient does."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from lit_credit.plotting.layer_curves import draw_layers
from lit_credit.plotting.ranges import Level
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
        draw_layers(
            ax,
            rows,
            f"{section}/{tag}/",
            names=names,
            ylabel=ylabel,
            title=title,
            log=False,
            reach=(-0.1, 1.02),
            levels=[Level(1.0, "gradient"), Level(0.0, "random", ill="below")],
            height=_HEIGHT,
        )
    return figure
