"""Buffers whose shapes are known only when they are first used."""

from typing import Any

import torch
from torch import nn

__all__ = ["LazyBuffers"]


class LazyBuffers(nn.Module):
    """A module that makes room for the buffers of a checkpoint, whose shapes only it knows."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        for key, value in state_dict.items():
            name = key.removeprefix(prefix)
            if key.startswith(prefix) and "." not in name and getattr(self, name, None) is None:
                self.register_buffer(name, torch.empty_like(value))
        super()._load_from_state_dict(state_dict, prefix, *args)
