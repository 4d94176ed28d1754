"""A module with buffers whose shapes are known only at their first use."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lit_credit.utils.private_names import NoticesLoading, own_buffers

__all__ = ["LazyBuffers"]


class LazyBuffers(NoticesLoading):
    """A module that takes buffers of a checkpoint in the shapes that the checkpoint has.

    A buffer that the checkpoint does not hold was not drawn when it was saved; the buffer is
    drawn at its next use.
    """

    def before_loading(self, saved: Mapping[str, Tensor]) -> None:
        """Make room for the buffers of the checkpoint."""
        buffers = own_buffers(self)
        for name in {*buffers, *saved}:
            own, given = buffers.get(name), saved.get(name)
            if given is None:
                buffers[name] = None
            elif own is None or own.shape != given.shape:
                device = None if own is None else own.device
                self.register_buffer(name, torch.empty_like(given, device=device))
