"""Buffers whose shapes are known only when they are first used."""

from typing import Any

import torch
from torch import nn

__all__ = ["LazyBuffers"]


class LazyBuffers(nn.Module):
    """A module that takes over the buffers of a checkpoint, whose shapes only it knows.

    What the checkpoint does not hold was not drawn when it was saved, and is drawn again at its
    next use.
    """

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        saved = {
            name: value
            for key, value in state_dict.items()
            if key.startswith(prefix) and "." not in (name := key.removeprefix(prefix))
        }
        for name in {*self._buffers, *saved}:
            own, given = self._buffers.get(name), saved.get(name)
            if given is None:
                self._buffers[name] = None
            elif own is None or own.shape != given.shape:
                device = None if own is None else own.device
                self.register_buffer(name, torch.empty_like(given, device=device))
        super()._load_from_state_dict(state_dict, prefix, *args)
