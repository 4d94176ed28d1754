"""Inputs and targets of any batch, under any loss."""

from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric

from lit_credit.tasks.added_metrics import check_added, with_added
from lit_credit.tasks.base import Task
from lit_credit.tasks.checks import entry

__all__ = ["Supervised"]


class Supervised(Task):
    """Inputs and a target, taken from a batch by index or by name; any loss, any metrics.

    For regression, and for batches that are mappings. A target that the loss compares entry by
    entry has the shape of the net's output: (N, 1) if the net has one output per sample.

    Args:
        loss: any module ``loss(output, target) -> scalar`` that averages over samples, such as
            ``torch.nn.MSELoss``.
        metrics: metrics by name, called with the output and the target.
        inputs: index or name of the net's input in the batch; a list passes several inputs to
            ``forward``, in this order.
        target: index or name of the target in the batch.

    Raises:
        ValueError: if an index is not whole, if a batch has no such entry, or if the output and a
            target of real numbers have as many entries and other shapes, which torch would compare
            all with all.

    Example:
        >>> import torch
        >>> task = Supervised(nn.MSELoss(), inputs="x", target="y")
        >>> task.loss(torch.zeros(2, 1), {"x": torch.zeros(2, 3), "y": torch.ones(2, 1)})
        tensor(1.)
    """

    def __init__(
        self,
        loss: nn.Module,
        metrics: dict[str, Metric] | None = None,
        inputs: int | str | list[int | str] = 0,
        target: int | str = 1,
    ) -> None:
        super().__init__()
        check_added([], metrics, self)
        self.criterion = loss
        self.added = metrics
        self.places = inputs if isinstance(inputs, list) else [inputs]
        for name, place in [*(("inputs", one) for one in self.places), ("target", target)]:
            if isinstance(place, bool) or not isinstance(place, int | str):
                raise ValueError(
                    f"`{name}` is {place!r}, expected the index of an entry of a batch or its name."
                )
        self.place = target

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """What ``inputs`` names."""
        return tuple(entry(batch, place, self, self._form) for place in self.places)

    def loss(self, output: Any, batch: Any) -> Tensor:
        """The loss of the output on the batch."""
        target = self.target(batch)
        if (
            isinstance(output, Tensor)
            and isinstance(target, Tensor)
            and target.is_floating_point()
            and output.shape != target.shape
            and output.numel() == target.numel()
        ):
            raise ValueError(
                f"the net's output is {tuple(output.shape)} and the target "
                f"{tuple(target.shape)}, which would be compared all with all. Have the datamodule "
                f"hand out targets of shape {tuple(output.shape)}, such as `y[:, None]`, or "
                "flatten the output in the net."
            )
        loss: Tensor = self.criterion(output, target)
        return loss

    def metrics(self) -> dict[str, Metric]:
        """Fresh copies of ``metrics``."""
        return with_added({}, self.added)

    def target(self, batch: Any) -> Any:
        """What ``target`` names."""
        return entry(batch, self.place, self, self._form)

    @property
    def _form(self) -> str:
        places = [*self.places, self.place]
        if any(isinstance(place, str) for place in places):
            return f"with the names {', '.join(map(repr, places))}"
        return f"with entries {', '.join(map(str, places))}"
