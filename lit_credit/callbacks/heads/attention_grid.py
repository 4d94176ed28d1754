"""The figure of attention maps, one per head."""

from collections.abc import Mapping
from textwrap import fill

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from lit_credit.functional import effective_keys
from lit_credit.plotting._style import (
    GRID,
    INK,
    LARGE,
    NORMAL,
    SMALL,
    TIMES,
    not_applicable,
    verbatim,
)
from lit_credit.plotting.short_names import short_names
from lit_credit.utils.numbers import number_text

__all__ = ["attention_grid"]

_PANEL, _LARGEST = 1.9, 40.0
_LETTER = 0.125
"""Width of a title's letter in inches; letters of labels are narrower."""
_OCTAVES = 5
"""Colours saturate at a factor of 2^5 above and below uniform attention."""
_DEEPER = (0.25, 0.5, 0.75, 1.0)
# Places that a head looks at are to stand out, not the many that it passes over.
_COLORS = LinearSegmentedColormap.from_list(
    "over uniform",
    [
        (0.0, "#F3CFA3"),
        (0.5, "white"),
        *((0.5 + x / 2, to_hex(mpl.colormaps["Blues"](x))) for x in _DEEPER),
    ],
)


def attention_grid(maps: Mapping[str, Tensor], *, title: str) -> Figure:
    r"""Draw attention as images, layers downwards and heads across.

    In each image, queries go down and keys to the right. Colours show the logarithm of a weight
    over uniform attention, 1 / (number of keys that the query may see): white is uniform, blue is
    more, pale orange is less, up to a factor of 32. All heads share this scale. Causal attention
    gives the first queries few keys and so large weights; the ratio does not depend on it. Keys
    that a query may not see are grey. Above each image stands the mean number of keys that a query
    attends to, the exponential of its entropy.

    Args:
        maps: name of a layer to A (H, T, S), NaN where a query may not see a key.
        title: title of the figure.

    Returns:
        The figure; it says n/a without maps.

    Example:
        >>> import torch
        >>> figure = attention_grid({"attention": torch.eye(3)[None]}, title="")
        >>> figure.axes[0].get_title(), figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
        ('H00  1.0 keys', 'key', 'attention\nquery')
    """
    heads = max((len(layer) for layer in maps.values()), default=1)
    size = (
        min(_PANEL * heads + 0.9, _LARGEST),
        min(1.15 * _PANEL * max(len(maps), 1) + 1.5, _LARGEST),
    )
    width = max(size[0], 5.0)
    figure = Figure(figsize=(width, size[1]), layout="constrained")
    axes = figure.subplots(max(len(maps), 1), heads, squeeze=False)
    title = fill(title, int(width / _LETTER))
    figure.suptitle(title, fontsize=LARGE, fontweight="bold", color=INK)
    if not maps:
        not_applicable(axes[0, 0])
    image = None
    for row, name, layer in zip(axes, short_names(maps), maps.values(), strict=False):
        for index, ax in enumerate(row):
            if index >= len(layer):
                ax.set_axis_off()
                continue
            image = _draw(ax, f"H{index:02d}", layer[index])
        row[0].set_ylabel(f"{verbatim(_wrapped(name))}\nquery", fontsize=NORMAL, color=INK)
    if maps:
        for ax in axes[-1]:
            ax.set_xlabel("key", fontsize=NORMAL, color=INK)
    if image is not None:
        _add_bar(figure, image)
    return figure


def _wrapped(name: str) -> str:
    """A dotted name, broken into lines that are no longer than the height of a panel."""
    return fill(name.replace(".", ". "), int(_PANEL / _LETTER) + 3).replace(". ", ".")


def _draw(ax: Axes, name: str, attention: Tensor) -> AxesImage:
    colors = _COLORS.with_extremes(bad=GRID)
    norm = CenteredNorm(0.0, _OCTAVES)
    image = ax.imshow(_over_uniform(attention), cmap=colors, norm=norm, aspect="auto")
    keys = effective_keys(attention.nan_to_num(), attention.isfinite()).nanmean().item()
    text = f"{number_text(keys, '.1f')} keys" if keys == keys else "n/a"
    ax.set_title(f"{name}  {text}", fontsize=SMALL, color=INK)
    queries, columns = attention.shape
    ax.set(xticks=[0, columns - 1], yticks=[0, queries - 1])
    ax.tick_params(labelsize=SMALL - 1, colors=INK, length=2)
    return image


def _over_uniform(attention: Tensor) -> np.ndarray:
    """log2 of each weight over that of uniform attention (T, S), within the range of colours."""
    seen = attention.isfinite()
    ratio = attention.double() * seen.sum(-1, keepdim=True)
    found: np.ndarray = ratio.log2().clamp(-_OCTAVES, _OCTAVES).numpy()
    return found


def _add_bar(figure: Figure, image: AxesImage) -> None:
    """One colour bar below all maps, with factors in place of logarithms."""
    ticks = [octaves for octaves in range(-_OCTAVES, _OCTAVES + 1) if octaves % 2 or not octaves]
    bar = figure.colorbar(
        image,
        ax=figure.axes,
        location="bottom",
        ticks=ticks,
        aspect=40,
        shrink=0.8,
        extend="both",
        pad=0.01,
    )
    factors = [f"{TIMES}{2**o}" if o > 0 else f"÷{2**-o}" if o < 0 else "uniform" for o in ticks]
    bar.ax.set_xticklabels(factors)
    bar.set_label("attention over uniform attention", fontsize=NORMAL, color=INK)
    bar.ax.tick_params(labelsize=SMALL, colors=INK)
    bar.outline.set_visible(False)
