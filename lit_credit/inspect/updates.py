"""Several updates in one training step."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from lit_credit.inspect.probe.layout import UnknownRows, row_layout
from lit_credit.inspect.probe.rows import count_rows, cut_rows

__all__ = ["Updates", "batches_of"]


class Updates(list[Any]):
    """The batches of one training step, one for each update."""


def batches_of(batch: Any, updates: int) -> Sequence[Any]:
    """The batches of a training step's updates.

    Args:
        batch: what the loader hands out: :class:`Updates`, or a batch whose rows are to be split.
        updates: parts of the rows, which are contiguous and differ by at most one row; fewer where
            there are fewer rows. Numbers and tensors of one entry go into every part.

    Returns:
        One batch an update.

    Raises:
        ValueError: if the batch does not say what its rows are; see
            :func:`lit_credit.inspect.probe.layout.row_layout`.

    Example:
        >>> import torch
        >>> [x.tolist() for (x,) in batches_of((torch.arange(4),), 2)]
        [[0, 1], [2, 3]]
    """
    if isinstance(batch, Updates):
        return batch
    if updates == 1:
        return [batch]
    try:
        layout = row_layout(batch, fields=True)  # a last batch may have two rows of two views
        rows = count_rows(batch, layout) or 0
    except UnknownRows as reason:
        raise ValueError(
            f"`updates_per_step` is {updates}, but the rows of a batch cannot be split: {reason}. "
            "Leave it at 1, hand out `lit_credit.inspect.updates.Updates`, a list of batches, or "
            "batches whose tensors all have one entry a row."
        ) from reason
    parts = min(updates, rows)
    borders = [rows * i // parts for i in range(parts + 1)]
    return [cut_rows(batch, *pair, layout) for pair in pairwise(borders)]
