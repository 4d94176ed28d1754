"""The figure of maps with a probability for every pair of symbols."""

import math
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.plotting._style import GRID, INK, LARGE, SMALL, not_applicable, verbatim

__all__ = ["symbol_maps"]

_PANEL, _ACROSS = 3.2, 4


def symbol_maps(maps: Mapping[str, Tensor], *, title: str, xlabel: str, ylabel: str) -> Figure:
    """Draw probabilities as images, four in a row, all with colours from 0 (white) to 1.

    Args:
        maps: title of a panel to its matrix (rows, columns); NaN is grey.
        title: title of the figure.
        xlabel: label of the columns.
        ylabel: label of the rows.

    Returns:
        The figure, with one colour bar for all panels; it says n/a without maps.

    Example:
        >>> import torch
        >>> figure = symbol_maps({"H00": torch.eye(3)}, title="", xlabel="last", ylabel="first")
        >>> figure.axes[0].images[0].get_clim()
        (0.0, 1.0)
    """
    across = min(max(len(maps), 2), _ACROSS)
    down = max(math.ceil(len(maps) / across), 1)
    size = _PANEL * across + 0.8, 1.12 * _PANEL * down + 0.5
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    figure.suptitle(title, fontsize=LARGE, fontweight="bold", color=INK)
    colors = mpl.colormaps["Blues"].with_extremes(bad=GRID)
    for ax in axes[max(len(maps), 1) :]:
        ax.set_axis_off()
    if not maps:
        not_applicable(axes[0])
        return figure
    image = None
    for ax, (name, values) in zip(axes, maps.items(), strict=False):
        shown = values.detach().double().cpu().numpy()
        ax.set_title(verbatim(name), fontsize=SMALL, color=INK)
        if not np.isfinite(shown).any():
            not_applicable(ax)
            continue
        image = ax.imshow(shown, cmap=colors, vmin=0.0, vmax=1.0, interpolation="none")
        ax.set_xlabel(xlabel, fontsize=SMALL, color=INK)
        ax.set_ylabel(ylabel, fontsize=SMALL, color=INK)
        ax.tick_params(labelsize=SMALL - 1, colors=INK, length=2)
    if image is None:
        return figure
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02, shrink=0.7)
    bar.ax.tick_params(labelsize=SMALL - 1, colors=INK)
    bar.outline.set_visible(False)
    return figure
