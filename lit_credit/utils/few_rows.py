"""The first rows of a batch."""

from typing import Any

from lit_credit.utils.finite import tensors_of
from lit_credit.utils.nested import map_tensors

__all__ = ["few_rows"]


def few_rows(batch: Any, count: int = 4) -> Any:
    """At most ``count`` rows of a batch; all of one whose tensors do not agree on what a row is.

    Example:
        >>> import torch
        >>> [len(part) for part in few_rows((torch.ones(9, 2), torch.ones(9)))]
        [4, 4]
    """
    tensors = [tensor for tensor in tensors_of(batch) if tensor.dim()]
    if any(tensor.is_nested for tensor in tensors) or len({len(t) for t in tensors}) != 1:
        return batch
    return map_tensors(batch, lambda x: x[:count] if x.dim() else x)
