"""Classification with one class per sample."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from lit_credit.tasks.added_metrics import ViewedMetric, check_added, with_added
from lit_credit.tasks.base import Task
from lit_credit.tasks.checks import entry, tensor_output
from lit_credit.utils.nested import described
from lit_credit.utils.ranges import check_range, check_sizes

__all__ = ["Classification"]

_MAIN = ("logits", "out")


class _OfMainHead(ViewedMetric):
    """A metric of the main head of a net with auxiliary heads."""

    def view(self, output: Any, target: Any) -> tuple[Any, Any]:
        """The output (N, C) of the main head."""
        return _heads(output)[0], target


class Classification(Task):
    """Batches ``(x, y)`` of inputs (N, ...) and classes (N,); accuracy over samples.

    Args:
        num_classes: classes C; the net's outputs are (N, C).
        loss: any module ``loss(output, target) -> scalar`` that averages over samples; None is
            cross-entropy.
        one_hot: pass one-hot rows (N, C) in the output's dtype to the loss instead of class
            indices; ``torch.nn.MSELoss`` needs them.
        aux_weight: weight w of auxiliary heads. For nets that return the outputs of auxiliary heads
            beside the main output, all (N, C), in training or always: as a tuple
            ``(output, aux, ...)``, like torchvision's GoogLeNet and Inception, or as a mapping
            ``{"out": output, "aux": aux}``. The loss is ``loss(output) + w * sum of loss(aux)``;
            metrics use the main output. None refuses such outputs.
        metrics: metrics by name besides ``accuracy``, called with the outputs (N, C) and the
            classes (N,).

    Raises:
        ValueError: if ``num_classes`` is below 1 or ``aux_weight`` below 0, or if a metric has the
            name ``accuracy``.

    Example:
        >>> import torch
        >>> batch = torch.zeros(2, 3), torch.tensor([0, 2])
        >>> Classification(num_classes=3).loss(torch.zeros(2, 3), batch)
        tensor(1.0986)
    """

    def __init__(
        self,
        num_classes: int = 10,
        loss: nn.Module | None = None,
        one_hot: bool = False,
        aux_weight: float | None = None,
        metrics: dict[str, Metric] | None = None,
    ) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes)
        check_range(0, aux_weight=aux_weight)
        self.num_classes = num_classes
        self.aux_weight = aux_weight
        self.one_hot = one_hot
        self.criterion = loss or nn.CrossEntropyLoss()
        check_added(["accuracy"], metrics, self)
        self.added = metrics

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """``(x,)``."""
        return (entry(batch, 0, self),)

    def loss(self, output: Any, batch: Any) -> Tensor:
        """The loss of outputs (N, C) on the batch.

        Raises:
            ValueError: if the outputs are not (N, C) with C = ``num_classes``, or if there are
                several and ``aux_weight`` is None.
        """
        target = entry(batch, 1, self)
        if self.aux_weight is None:
            if not isinstance(output, Tensor) and len(_heads(output)) > 1:
                raise ValueError(
                    f"Classification compares a tensor, but the net returns {described(output)}. "
                    "If the others are auxiliary heads, set the task's `aux_weight`, the weight of "
                    "their losses, such as 0.3. If not, wrap the net in a module that returns the "
                    "logits alone."
                )
            return self._loss(tensor_output(output, self), target)
        main, *others = _heads(output) or [tensor_output(output, self)]
        loss = self._loss(main, target)
        for aux in others:
            loss = loss + self.aux_weight * self._loss(aux, target)
        return loss

    def _loss(self, output: Tensor, target: Tensor) -> Tensor:
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
        """``accuracy``: the fraction of samples whose largest output is their class; and others."""
        # validate_args costs a device synchronisation per batch.
        accuracy = MulticlassAccuracy(self.num_classes, average="micro", validate_args=False)
        found = with_added({"accuracy": accuracy}, self.added)
        if self.aux_weight is None:
            return found
        return {name: _OfMainHead(metric) for name, metric in found.items()}

    def target(self, batch: Any) -> Tensor:
        """``y`` (N,)."""
        target: Tensor = batch[1]
        return target


def _heads(output: Any) -> list[Tensor]:
    """The main output, followed by the outputs of auxiliary heads if there are any."""
    if isinstance(output, Mapping):
        aux = [name for name in output if "aux" in str(name)]
        main = [name for name in (*_MAIN, *output) if name in output and name not in aux]
        output = [output[name] for name in (*main[:1], *aux)]
    parts = output if isinstance(output, tuple | list) else [output]
    return [part for part in parts if isinstance(part, Tensor)]
