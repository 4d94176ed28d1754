"""Metrics that a configuration adds to those of a task, and metrics of a part of an output."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from torch import nn
from torchmetrics import Metric

from lit_credit.utils.short_text import choice

__all__ = ["ViewedMetric", "check_added", "with_added"]


def check_added(own: Iterable[str], added: Mapping[str, Any] | None, task: nn.Module) -> None:
    """Refuse added metrics whose names are taken, and values that are not metrics.

    Args:
        own: names of the task's own metrics.
        added: further metrics, by name.
        task: the task, for the error.

    Raises:
        ValueError: naming the metric.
    """
    name, taken = type(task).__name__, [*own, "loss"]
    for key, metric in (added or {}).items():
        if key in taken:
            raise ValueError(
                f"`metrics` of {name} has {key!r}, which is logged already. Choose another name "
                f"than {choice(taken)}."
            )
        if not isinstance(metric, Metric):
            raise ValueError(
                f"`metrics[{key!r}]` of {name} is {type(metric).__name__}, expected a metric of "
                "torchmetrics, such as torchmetrics.MeanAbsoluteError(), or a subclass of "
                "torchmetrics.Metric."
            )


def with_added(own: Mapping[str, Metric], added: Mapping[str, Metric] | None) -> dict[str, Metric]:
    """The metrics of a task, followed by fresh copies of those that are added.

    Args:
        own: metrics of the task, by name.
        added: further metrics, by name.

    Example:
        >>> from torchmetrics import MeanSquaredError
        >>> mse = MeanSquaredError()
        >>> found = with_added({}, {"mse": mse})
        >>> list(found), found["mse"] is mse
        (['mse'], False)
    """
    return {**own, **{name: deepcopy(metric) for name, metric in (added or {}).items()}}


class ViewedMetric(Metric):
    """A metric of a part of the output, or of output and target in other shapes.

    Args:
        metric: metric that compares what :meth:`view` returns.
    """

    full_state_update = False

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self.metric = metric

    @abstractmethod
    def view(self, output: Any, target: Any) -> tuple[Any, Any]:
        """What the metric compares."""

    def update(self, output: Any, target: Any) -> None:
        """Add a batch."""
        self.metric.update(*self.view(output, target))

    def compute(self) -> Any:
        """The value of the metric."""
        return self.metric.compute()

    def reset(self) -> None:
        """Reset the inner metric too."""
        super().reset()
        self.metric.reset()
