"""The base class of tasks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torchmetrics import Metric

from lit_credit.functional import scale_flags
from lit_credit.headlines import Derived, Ends, Flag, Headline, Panel

__all__ = ["Task"]


def _above(ends: Ends) -> float:
    return ends.last - ends.baseline


def _depth_unused(ends: Ends) -> float:
    return scale_flags(accuracy=ends.last, frozen_accuracy=ends.baseline).depth_unused


_DEPTH = Flag(
    "depth",
    "depth_unused",
    "accuracy less than 0.02 above that of {baseline}",
    _depth_unused,
)
_ACCURACY = Headline(
    "accuracy",
    form=".3f",
    order=0,
    better="up",
    each_loader=True,
    derived=(Derived("above_frozen", _above, "above frozen", "+.3f", order=60, flag=_DEPTH),),
    panel=Panel(
        "Accuracy", "fraction correct, validation data", reach=(0, 1), slot="metric", order=3
    ),
)
_LOSS = Headline(
    "loss",
    form=".3f",
    order=0,
    better="down",
    each_loader=True,
    panel=Panel("Loss", "mean over validation data", slot="metric", order=5),
)


class Task(nn.Module, ABC):
    """The meaning of a batch: the inputs of the net, the loss, and the metrics.

    A rule knows nothing about labels; it asks its task.
    """

    headline: ClassVar[Sequence[Headline]] = (_ACCURACY, _LOSS)
    """The metrics by which runs are compared, see docs/compare.md."""

    def __init__(self) -> None:
        super().__init__()

    @abstractmethod
    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """The positional arguments of the net's ``forward``."""

    @abstractmethod
    def loss(self, output: Tensor, batch: Any) -> Tensor:
        """The scalar to minimise, a mean over the samples of the batch."""

    @abstractmethod
    def metrics(self) -> dict[str, Metric]:
        """New metrics by name, such as ``accuracy``; runs are compared by the first one."""

    @abstractmethod
    def target(self, batch: Any) -> Any:
        """The target that the metrics compare the output with."""
