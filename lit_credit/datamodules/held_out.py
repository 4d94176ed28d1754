"""Holding out a part of the samples for validation."""

from math import ceil

import torch
from torch import Tensor

from lit_credit.utils.random_state import generator_of

__all__ = ["held_out"]


def held_out(n: int, fraction: float, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Indices of the samples for training and for validation, the same in every run.

    Args:
        n: number of samples.
        fraction: share for validation, rounded up, of each class if there are classes.
        classes: class of each sample, (n,); None does not look at classes.

    Returns:
        Two tensors of sorted indices, int64.

    Raises:
        ValueError: if no sample is left for one of the two.

    Example:
        >>> train, val = held_out(10, 0.2)
        >>> len(train), len(val)
        (8, 2)
    """
    order = torch.randperm(n, generator=generator_of(0))
    groups = [order]
    if classes is not None:
        groups = [order[classes[order] == one] for one in torch.unique(classes)]
    sizes = [ceil(fraction * len(group)) for group in groups]
    val = torch.cat([g[:size] for g, size in zip(groups, sizes, strict=True)]).sort().values
    train = torch.cat([g[size:] for g, size in zip(groups, sizes, strict=True)]).sort().values
    if not len(train) or not len(val):
        raise ValueError(
            f"`val_fraction` is {fraction}, which leaves {len(train)} of {n} samples for training "
            f"and {len(val)} for validation. Choose another, or give more data."
        )
    return train, val
