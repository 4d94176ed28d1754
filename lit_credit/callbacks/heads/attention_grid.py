"""The figure of attention maps, one per head."""

from collections.abc import Mapping
from textwrap import fill

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.plotting._style import GRID, INK, LARGE, NORMAL, SMALL, not_applicable, verbatim
from lit_credit.plotting.short_names import short_names

__all__ = ["attention_grid"]

_PANEL, _LARGEST = 1.9, 40.0
_LETTER = 0.125
"""Width of a title's letter in inches; letters of labels are narrower."""


def attention_grid(maps: Mapping[str, Tensor], *, title: str) -> Figure:
    r"""Draw attention as images, layers downwards and heads across.

    In each image, queries go down and keys to the right. Colours go from 0 (white) to the largest
    weight of the head, which stands above the image. They follow the square root of the weight,
    because the first queries of causal attention have few keys and so large weights. Keys that a
    query may not see are grey.

    Args:
        maps: name of a layer to A (H, T, S), NaN where a query may not see a key.
        title: title of the figure.

    Returns:
        The figure; it says n/a without maps.

    Example:
        >>> import torch
        >>> figure = attention_grid({"attention": torch.eye(3)[None]}, title="")
        >>> figure.axes[0].get_title(), figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
        ('H00  max 1.00', 'key', 'attention\nquery')
    """
    heads = max((len(layer) for layer in maps.values()), default=1)
    size = min(_PANEL * heads + 0.9, _LARGEST), min(1.15 * _PANEL * max(len(maps), 1) + 1, _LARGEST)
    width = max(size[0], 5.0)
    figure = Figure(figsize=(width, size[1]), layout="constrained")
    axes = figure.subplots(max(len(maps), 1), heads, squeeze=False)
    title = fill(title, int(width / _LETTER))
    figure.suptitle(title, fontsize=LARGE, fontweight="bold", color=INK)
    if not maps:
        not_applicable(axes[0, 0])
    for row, name, layer in zip(axes, short_names(maps), maps.values(), strict=False):
        for index, ax in enumerate(row):
            if index >= len(layer):
                ax.set_axis_off()
                continue
            _draw(ax, f"H{index:02d}", layer[index].numpy())
        row[0].set_ylabel(f"{verbatim(_wrapped(name))}\nquery", fontsize=NORMAL, color=INK)
    if maps:
        for ax in axes[-1]:
            ax.set_xlabel("key", fontsize=NORMAL, color=INK)
    return figure


def _wrapped(name: str) -> str:
    """A dotted name, broken into lines that are no longer than the height of a panel."""
    return fill(name.replace(".", ". "), int(_PANEL / _LETTER) + 3).replace(". ", ".")


def _draw(ax: Axes, name: str, weights: np.ndarray) -> None:
    seen = weights[np.isfinite(weights)]
    top = float(seen.max()) if len(seen) else 0.0
    colors = mpl.colormaps["Blues"].with_extremes(bad=GRID)
    ax.imshow(weights, cmap=colors, norm=PowerNorm(0.5, 0.0, top or 1.0), aspect="auto")
    text = f"max {top:.2f}" if len(seen) else "n/a"
    ax.set_title(f"{name}  {text}", fontsize=SMALL, color=INK)
    ax.set(xticks=[0, weights.shape[1] - 1], yticks=[0, weights.shape[0] - 1])
    ax.tick_params(labelsize=SMALL - 1, colors=INK, length=2)
