"""What a batch means."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric

__all__ = ["Task"]


class Task(nn.Module, ABC):
    """The meaning of a batch: what goes into the net, the loss, and what is measured.

    A rule knows nothing of labels; it asks its task.
    """

    def __init__(self) -> None:
        super().__init__()

    @abstractmethod
    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """The positional arguments of the net's forward."""

    @abstractmethod
    def loss(self, output: Tensor, batch: Any) -> Tensor:
        """The scalar to descend on, a mean over the samples of the batch."""

    @abstractmethod
    def metrics(self) -> dict[str, Metric]:
        """Fresh metrics by name, ``accuracy`` for example; the first one compares runs."""

    @abstractmethod
    def target(self, batch: Any) -> Any:
        """What the metrics compare the output with."""
