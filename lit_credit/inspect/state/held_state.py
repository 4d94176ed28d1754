"""Replacing a module's state by working copies until it is restored."""

from collections.abc import Iterable, Mapping, Sequence
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from lit_credit.inspect.state.held_boxes import (
    same_values,
)
from lit_credit.inspect.state.reachable import ReachableState

__all__ = ["HeldState", "copies_of"]


class HeldState(ReachableState):
    """Working copies of all state that is reachable from some objects, until :meth:`restore`.

    Containers stay the same objects, and their contents are restored: attributes, lists, dicts,
    sets, deques, slots and closures; in a user's own code also class attributes and the globals
    that functions name. Tensors in containers are replaced by copies, so that the originals are
    never written to; a graph that needs a copy keeps it. Parameters stay the same objects, with the
    memory of a copy as their ``data`` and without a gradient. Random generators and numpy arrays
    are set back. Objects that cannot be copied are replaced by a stand-in that raises when used.

    Args:
        roots: objects to begin with, by the names that errors give them.
        skipped: objects that are not entered.
        outer: the state that is already held. Objects added since then, such as a measurement's
            hooks and their records, are not entered. Tensors that still equal the originals of
            ``outer`` are not copied again.
        functions: enter functions.
    """

    def __init__(
        self,
        roots: Mapping[str, Any],
        *,
        skipped: Iterable[Any] = (),
        outer: "HeldState | None" = None,
        functions: bool = True,
    ) -> None:
        super().__init__(
            roots,
            skipped=skipped,
            known=None if outer is None else outer._seen,
            functions=functions,
        )
        self._outer: Mapping[int, Tensor] = {} if outer is None else outer.originals
        self._work_on_copies()

    def _work_on_copies(self) -> None:
        own = [one for one in self._parameters if not one.rest_on(self._outer)]
        self._lent = {
            key: (tensor, self._outer[key])
            for key, tensor in self._tensors.items()
            if key in self._outer and same_values(tensor, self._outer[key])
        }
        tensors = [tensor for key, tensor in self._tensors.items() if key not in self._lent]
        # Make all copies, for which memory may be short, before anything is replaced.
        memory, copies = copies_of([one.original for one in own]), copies_of(tensors)
        for one, working in zip(own, memory, strict=True):
            one.work_on(working)
        self._stand_ins |= dict(zip(map(id, tensors), copies, strict=True))
        self._put(self._stand_ins)
        # Keyed by the id of the working tensor, which lives as long as this object.
        self.originals = dict(self._outer)
        self.originals |= {id(one.tensor): one.original for one in self._parameters}
        self.originals |= {id(new): old for new, old in zip(copies, tensors, strict=True)}
        self._seen |= {id(new): new for new in self._stand_ins.values()}

    def _put(self, stand_ins: dict[int, Any]) -> None:
        for box, key, value in self._slots:
            new = self._replaced(value, stand_ins)
            if new is not value:
                box.put(key, new)

    def _replaced(self, value: Any, stand_ins: dict[int, Any]) -> Any:
        if id(value) in stand_ins:
            return stand_ins[id(value)]
        if not isinstance(value, tuple) or not self._tuples.get(id(value)):
            return value
        parts = [self._replaced(part, stand_ins) for part in value]
        if all(map(is_, parts, value)):
            return value
        made = type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        stand_ins[id(value)] = made
        return made

    def restore(self) -> None:
        """Restore everything."""
        for parameter in self._parameters:
            parameter.restore()
        for box in self._boxes:
            box.restore()
        for container in self._empty:
            if container:
                container.clear()
        written = {
            key: original.to(tensor.dtype, copy=True)
            for key, (tensor, original) in self._lent.items()
            if not same_values(tensor, original)
        }
        if written:  # put copies there: a graph may need the written tensors
            self._put(written)
        for undo in self._undo:
            undo()


_PLAIN = {Tensor, nn.Parameter, getattr(nn, "Buffer", Tensor)}


def copies_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copy each tensor; copies of tensors that share memory share memory too.

    So tied weights stay tied, and weights that cuDNN wants in one piece stay in one piece. If only
    one of the tensors uses a memory, it is cloned without the rest of that memory.

    Args:
        tensors: tensors on any device; those that are not plain and dense are cloned one by one.

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
    """A key for the tensor's memory; None if the tensor must be copied by itself."""
    is_dense = tensor.layout is torch.strided and not tensor.is_quantized
    if type(tensor) not in _PLAIN or not is_dense or tensor.requires_grad or tensor.is_meta:
        return None
    address = tensor.untyped_storage().data_ptr()
    return (tensor.device, address) if address else None
