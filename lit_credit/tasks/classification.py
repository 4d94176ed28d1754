"""One class per sample."""

from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from lit_credit.tasks.base import Task
from lit_credit.tasks.checks import entry, tensor_output
from lit_credit.utils.ranges import check_sizes

__all__ = ["Classification"]


class Classification(Task):
    """Batches ``(x, y)`` of inputs (N, ...) and classes (N,); accuracy over samples.

    Args:
        num_classes: classes C; the net's outputs are (N, C).
        loss: any module ``loss(output, target) -> scalar`` that averages over samples; None is
            cross-entropy.
        one_hot: hand the loss one-hot rows (N, C) in the output's dtype instead of class indices,
            as ``torch.nn.MSELoss`` wants.

    Example:
        >>> import torch
        >>> batch = torch.zeros(2, 3), torch.tensor([0, 2])
        >>> Classification(num_classes=3).loss(torch.zeros(2, 3), batch)
        tensor(1.0986)
    """

    def __init__(
        self, num_classes: int = 10, loss: nn.Module | None = None, one_hot: bool = False
    ) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes)
        self.num_classes = num_classes
        self.one_hot = one_hot
        self.criterion = loss or nn.CrossEntropyLoss()

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """``(x,)``."""
        return (entry(batch, 0, self),)

    def loss(self, output: Tensor, batch: Any) -> Tensor:
        """The loss of outputs (N, C) on the batch.

        Raises:
            ValueError: if the outputs are not (N, C) with C = ``num_classes``.
        """
        target, output = entry(batch, 1, self), tensor_output(output, self)
        expected = (len(target), self.num_classes)
        if output.shape != expected:
            raise ValueError(
                f"the net's output is {tuple(output.shape)}, expected {expected}, that is "
                "(samples, `num_classes`). Make the net's and the task's `num_classes` equal."
            )
        if self.one_hot:
            target = nn.functional.one_hot(target, self.num_classes).to(output.dtype)
        loss: Tensor = self.criterion(output, target)
        return loss

    def metrics(self) -> dict[str, Metric]:
        """``accuracy``: the fraction of samples whose largest output is their class."""
        # validate_args costs a device synchronisation per batch.
        return {
            "accuracy": MulticlassAccuracy(self.num_classes, average="micro", validate_args=False)
        }

    def target(self, batch: Any) -> Tensor:
        """``y`` (N,)."""
        target: Tensor = batch[1]
        return target
