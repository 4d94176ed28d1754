"""Values of samples, gathered chunk by chunk."""

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["Gathered"]


class Gathered:
    """Values a sample by tag, of which each chunk brings some.

    Example:
        >>> gathered = Gathered()
        >>> gathered.add("norm", torch.ones(2))
        >>> gathered.add("norm", torch.zeros(1))
        >>> gathered["norm"]
        tensor([1., 1., 0.])
    """

    def __init__(self) -> None:
        self._parts: dict[str, list[Tensor]] = {}

    def add(self, tag: str, values: Tensor) -> None:
        """Keep the (N, ...) values of a chunk's samples, without their graph."""
        self._parts.setdefault(tag, []).append(values.detach())

    def __getitem__(self, tag: str) -> Tensor:
        parts = self._parts[tag]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def __contains__(self, tag: str) -> bool:
        return tag in self._parts

    def __iter__(self) -> Iterator[str]:
        """The tags, in the order in which they first came."""
        return iter(self._parts)

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Every tag with the values of all samples."""
        return ((tag, self[tag]) for tag in self)
