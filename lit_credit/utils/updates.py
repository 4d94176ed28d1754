"""Several updates in one training step."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lit_credit.utils.nested import first_tensor, map_tensors

__all__ = ["Updates", "batches_of"]


class Updates(list[Any]):
    """The batches of one training step, one for each update."""


def batches_of(batch: Any, updates: int) -> Sequence[Any]:
    """The batches of a training step's updates.

    Args:
        batch: what the loader hands out: :class:`Updates`, or a batch whose rows are to be split.
        updates: parts of the rows, which are contiguous and differ by at most one row; fewer where
            there are fewer rows. What has not one entry a row goes into every part.

    Returns:
        One batch an update.

    Example:
        >>> import torch
        >>> [x.tolist() for (x,) in batches_of((torch.arange(4),), 2)]
        [[0, 1], [2, 3]]
    """
    if isinstance(batch, Updates):
        return batch
    first = first_tensor(batch)
    if updates == 1 or first is None or first.dim() == 0:
        return [batch]
    rows = len(first)
    parts = min(updates, rows)

    def part(index: int) -> Any:
        start, stop = (rows * i // parts for i in (index, index + 1))

        def cut(tensor: Tensor) -> Tensor:
            return tensor[start:stop] if tensor.dim() and len(tensor) == rows else tensor

        return map_tensors(batch, cut)

    return [part(index) for index in range(parts)]
