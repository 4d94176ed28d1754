"""The task of an ensemble: the same task for every member."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_credit.tasks.added_metrics import ViewedMetric
from lit_credit.tasks.base import Task
from lit_credit.utils.ranges import check_parts
from lit_credit.utils.short_text import choice

__all__ = ["EachMember", "MemberMetric"]


class MemberMetric(ViewedMetric):
    """A metric of one member's output.

    Args:
        metric: metric that compares an output with a target.
        index: index of the member.
    """

    def __init__(self, metric: Metric, index: int) -> None:
        super().__init__(metric)
        self.index = index

    def view(self, output: Any, target: Any) -> tuple[Any, Any]:
        """The outputs of the member, of outputs (E, ...) of all members."""
        return output[self.index], target


class EachMember(Task):
    """The task of each net of a :class:`lit_credit.models.Ensemble`.

    The loss is the SUM of the members' losses, so that the gradient of a member's parameters is the
    same as for that member alone. The metric ``exact`` of member 3 is ``exact/M03``.

    Args:
        task: task of one member.
        members: number E of members.
        metrics: names of the task's metrics to measure for each member; None takes all.

    Raises:
        ValueError: if the task has no such metric.

    Example:
        >>> from lit_credit.tasks import Classification
        >>> task = EachMember(Classification(num_classes=10), members=3)
        >>> task.loss(torch.zeros(3, 4, 10), (None, torch.zeros(4, dtype=torch.long)))
        tensor(6.9078)
        >>> list(task.metrics())
        ['accuracy/M00', 'accuracy/M01', 'accuracy/M02']
    """

    def __init__(self, task: Task, members: int = 8, metrics: list[str] | None = None) -> None:
        super().__init__()
        check_parts(members=members)
        known = list(task.metrics())
        unknown = [name for name in metrics or () if name not in known]
        if unknown:
            raise ValueError(
                f"`metrics` has {choice(unknown)}, expected some of {choice(known, unknown[0])}."
            )
        self.task = task
        self.members = members
        self.measured = known if metrics is None else metrics

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """The inputs of the task, the same for all members."""
        return self.task.inputs(batch)

    def loss(self, output: Tensor, batch: Any) -> Tensor:
        """The sum of the members' losses.

        Raises:
            ValueError: if there are more or fewer outputs than ``members``.
        """
        if len(output) != self.members:
            raise ValueError(
                f"`members` of the task is {self.members}, but the net has {len(output)} outputs. "
                "Make it equal to `members` of the ensemble."
            )
        losses: Tensor = torch.vmap(lambda one: self.task.loss(one, batch))(output)
        return losses.sum()

    def metrics(self) -> dict[str, Metric]:
        """Every measured metric, once per member."""
        return {
            f"{name}/M{index:02d}": MemberMetric(self.task.metrics()[name], index)
            for name in self.measured
            for index in range(self.members)
        }

    def target(self, batch: Any) -> Any:
        """The target of the task."""
        return self.task.target(batch)
