"""Copies of tensors that share memory where the originals do."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["copies_of"]

_PLAIN = {Tensor, nn.Parameter, getattr(nn, "Buffer", Tensor)}


def copies_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    """A copy of each tensor; copies of views of one memory are views of one memory.

    So tied weights stay tied, and what cuDNN wants in one piece stays in one piece. A tensor that
    alone refers to its memory is cloned without the rest of that memory.

    Args:
        tensors: on any device; those that are not plain and dense are cloned one by one.

    Example:
        >>> whole = torch.zeros(4)
        >>> copy, view = copies_of([whole, whole[1:3]])
        >>> _ = view.fill_(1.0)
        >>> copy.tolist(), whole.tolist()
        ([0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0])
    """
    keys = [_memory(tensor) for tensor in tensors]
    count: dict[object, int] = {}
    for key in keys:
        if key is not None:
            count[key] = count.get(key, 0) + 1
    memory: dict[object, torch.UntypedStorage] = {}
    copies = []
    for tensor, key in zip(tensors, keys, strict=True):
        if key is None or count[key] == 1:
            copies.append(tensor.clone())
            continue
        if key not in memory:
            memory[key] = tensor.untyped_storage().clone()  # type: ignore[no-untyped-call]
        empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        place = tensor.storage_offset(), tensor.shape, tensor.stride()
        copies.append(empty.set_(memory[key], *place))
    return copies


def _memory(tensor: Tensor) -> tuple[torch.device, int] | None:
    """What the memory is known by; None if the tensor is to be copied by itself."""
    is_dense = tensor.layout is torch.strided and not tensor.is_quantized
    if type(tensor) not in _PLAIN or not is_dense or tensor.requires_grad or tensor.is_meta:
        return None
    address = tensor.untyped_storage().data_ptr()
    return (tensor.device, address) if address else None
