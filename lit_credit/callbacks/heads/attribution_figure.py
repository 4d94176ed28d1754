"""The figure of head attribution: margins by sample, and accuracies."""

import math
from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.plotting._style import BLUE, GREY, INK, LARGE, SMALL, dress, verbatim
from lit_credit.plotting.signed_heatmaps import SignedMap, draw_signed
from lit_credit.utils.numbers import number_text

__all__ = ["attribution_figure"]

_WHOLE = ("heads", "rest", "group")


def attribution_figure(margins: Tensor, accuracy: Mapping[str, float], *, title: str) -> Figure:
    """Draw the margin of every part on every sample, and beside it the accuracy of every part.

    Args:
        margins: (parts, samples), above 0 where the part alone is right.
        accuracy: name of a part to its accuracy, in the order of ``margins``. The parts ``heads``,
            ``rest`` and ``group``, which are not single heads, are grey.
        title: title of the figure.

    Returns:
        The figure: an image, and bars in line with its rows.

    Raises:
        ValueError: if the numbers of names and rows differ.

    Example:
        >>> import torch
        >>> margins = torch.tensor([[1.0, -1.0], [2.0, 1.0]])
        >>> figure = attribution_figure(margins, {"H00": 0.5, "group": 1.0}, title="")
        >>> [text.get_text() for text in figure.axes[1].texts]
        ['0.50', '1.00']
    """
    if len(accuracy) != len(margins):
        raise ValueError(
            f"`accuracy` has {len(accuracy)} parts, but `margins` {len(margins)} rows. Give one "
            "accuracy a row."
        )
    height = min(2.0 + 0.3 * len(accuracy), 40.0)
    figure = Figure(figsize=(12.0, height), layout="constrained")
    image, bars = figure.subplots(1, 2, width_ratios=[3, 1])
    figure.suptitle(title, fontsize=LARGE, fontweight="bold", color=INK)
    draw_signed(image, SignedMap(margins, "samples, by their target", saturation=0.95))
    image.set_yticks(range(len(accuracy)), [*map(verbatim, accuracy)])
    name = "margin by itself (logits)"
    image.set_title(name, loc="left", fontsize=LARGE, fontweight="bold", color=INK)
    dress(bars, "right by itself", "", "share of the samples")
    places = range(len(accuracy))
    colors = [GREY if name in _WHOLE else BLUE for name in accuracy]
    widths = [value if math.isfinite(value) else 0.0 for value in accuracy.values()]
    bars.barh(places, widths, height=0.72, color=colors)
    bars.set(xlim=(0, 1.2), ylim=(len(accuracy) - 0.5, -0.5), yticks=[])
    bars.grid(False, axis="y")
    for place, (value, width) in enumerate(zip(accuracy.values(), widths, strict=True)):
        text = number_text(value, ".2f")
        bars.text(0.02 + width, place, text, va="center", fontsize=SMALL, color=INK)
    return figure
