"""Holding out a part of the samples for validation."""

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
            class if there are classes; at least one sample of a class is for training.

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
    sizes = [min(ceil(share * len(group)), len(group) - 1) for group in groups]
    val = torch.cat([g[:size] for g, size in zip(groups, sizes, strict=True)]).sort().values
    train = torch.cat([g[size:] for g, size in zip(groups, sizes, strict=True)]).sort().values
    if not len(train) or not len(val):
        raise ValueError(
            f"`{name}` is {share}, which leaves {len(train)} of {n} samples for training and "
            f"{len(val)} for validation. Choose another, or give more data."
        )
    return train, val
