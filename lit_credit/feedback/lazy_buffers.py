"""A module with buffers whose shapes are known only at their first use."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lit_credit.utils.private_names import NoticesLoading, own_buffers, own_parameters

__all__ = ["LazyBuffers"]


class LazyBuffers(NoticesLoading):
    """A module that takes tensors of a checkpoint in the shapes that the checkpoint has.

    Its tensors are buffers, or parameters if they learn. A tensor that the checkpoint does not hold
    was not drawn when it was saved; it is drawn at its next use.
    """

    def before_loading(self, saved: Mapping[str, Tensor]) -> None:
        """Make room for the tensors of the checkpoint."""
        buffers, parameters = own_buffers(self), own_parameters(self)
        for name in {*buffers, *parameters, *saved}:
            learns = name in parameters
            own, given = (parameters if learns else buffers).get(name), saved.get(name)
            if given is None:
                setattr(self, name, None)
            elif own is None or own.shape != given.shape:
                device = None if own is None else own.device
                empty = torch.empty_like(given, device=device)
                if learns:
                    self.register_parameter(name, nn.Parameter(empty))
                else:
                    self.register_buffer(name, empty)
