"""Splitting the batch of a training step for several updates."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from lit_credit.inspect.probe.layout import UnknownRows, row_layout
from lit_credit.inspect.probe.rows import count_rows, cut_rows

__all__ = ["Updates", "batches_of"]


class Updates(list[Any]):
    """The batches of one training step, one per update."""


def batches_of(batch: Any, updates: int) -> Sequence[Any]:
    """Split what the loader hands out into one batch per update.

    Args:
        batch: what the loader hands out: :class:`Updates`, or a batch whose rows are to be split.
        updates: number of parts, or of rows if there are fewer. Parts are contiguous, and their
            sizes differ by at most one row. Numbers and scalar tensors go into every part.

    Returns:
        One batch per update.

    Raises:
        ValueError: if the rows of the batch are not known; see
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
