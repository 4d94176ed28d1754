"""Holding out a part of the samples for validation."""

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor

from lit_credit.utils.random_state import generator_of

__all__ = ["held_out"]


def held_out(
    n: int, classes: Tensor | None = None, seed: int = 0, **fraction: float
) -> tuple[Tensor, Tensor]:
    """Indices of the samples for training and for validation, a function of the arguments alone.

    Args:
        n: number of samples.
        classes: class of each sample, (n,); None does not look at classes.
        seed: seed of the choice.
        **fraction: share for validation, by the name of its argument. It is rounded up, of each
            class if there are classes; at least one sample of a class is for training. Classes
            whose share is less than one sample are counted together, so that not each of them
            gives one.

    Returns:
        Two tensors of sorted indices, int64.

    Raises:
        ValueError: if no sample is left for one of the two.

    Example:
        >>> train, val = held_out(10, val_split=0.2)
        >>> len(train), len(val)
        (8, 2)
    """
    ((name, share),) = fraction.items()
    order = torch.randperm(n, generator=generator_of(seed))
    groups = [order]
    if classes is not None:
        groups = [order[classes[order] == one] for one in torch.unique(classes)]
    sizes = _sizes(groups, share)
    val = torch.cat([g[:size] for g, size in zip(groups, sizes, strict=True)]).sort().values
    train = torch.cat([g[size:] for g, size in zip(groups, sizes, strict=True)]).sort().values
    if not len(train) or not len(val):
        raise ValueError(
            f"`{name}` is {share}, which leaves {len(train)} of {n} samples for training and "
            f"{len(val)} for validation. Choose another, or give more data."
        )
    return train, val


def _sizes(groups: Sequence[Tensor], share: float) -> list[int]:
    """Number of samples of each group that are held out."""
    sizes, small, given = [], 0, 0
    for group in groups:
        size = ceil(share * len(group))
        if share * len(group) < 1 < len(group):
            small += len(group)
            size = ceil(share * small) - given
            given += size
        sizes.append(min(size, len(group) - 1))
    return sizes
