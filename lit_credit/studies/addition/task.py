"""The answers of sums."""

from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import Metric

from lit_credit.studies.addition.layout import AdditionLayout
from lit_credit.studies.addition.metrics import (
    CarryError,
    DigitError,
    ExactMatch,
    RunMatch,
    SumTarget,
    TokenAccuracy,
)
from lit_credit.tasks.base import Task
from lit_credit.tasks.checks import entry, tensor_output

__all__ = ["AdditionTask"]

_FORM = "(tokens, forced)"


class AdditionTask(Task):
    """Batches ``(tokens, forced)``; see :class:`lit_credit.studies.addition.Addition`.

    The loss is the mean cross-entropy, in nats, of the answer's symbols, "EOS" among them. The net
    may answer at all positions, or only where the answer is predicted.

    Args:
        digits: of each number that is added.

    Example:
        >>> import torch
        >>> task = AdditionTask(digits=1)
        >>> tokens = AdditionLayout(1).encode(torch.tensor([7]), torch.tensor([6]))
        >>> task.loss(torch.zeros(1, 3, 10), (tokens, torch.tensor([False])))
        tensor(2.3026)
    """

    def __init__(self, digits: int = 10) -> None:
        super().__init__()
        self.layout = AdditionLayout(digits)

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """All symbols but the last."""
        return (entry(batch, 0, self, _FORM)[:, :-1],)

    def loss(self, output: Tensor, batch: Any) -> Tensor:
        """The loss of logits (N, R, 10) of the answer's rows, or (N, T, 10) of all inputs.

        Raises:
            ValueError: if the logits have another shape, or the sums another length.
        """
        tokens, layout = entry(batch, 0, self, _FORM), self.layout
        output = tensor_output(output, self)
        rows = layout.digits + 2
        if tokens.shape[1] != layout.length or output.shape[1] not in (rows, layout.inputs):
            raise ValueError(
                f"`digits` of the task is {layout.digits}, so that sums have {layout.length} "
                f"symbols and the net answers at {rows} or {layout.inputs}, but they have "
                f"{tokens.shape[1]}, and it at {output.shape[1]}. Make `digits` of net, data and "
                "task equal."
            )
        # In the order of the fast pass, the samples last: no copy, and a faster softmax.
        logits = output[:, -rows:].permute(2, 1, 0).reshape(1, output.shape[2], -1)
        return cross_entropy(logits, tokens[:, layout.answers].T.reshape(1, -1))

    def metrics(self) -> dict[str, Metric]:
        """The names of what is measured.

        ``exact``, ``token_accuracy`` of uniform sums and ``chains``, the exact ones of the sums
        with a forced run; ``error/Z00`` and so on, by digit; ``error/carry0`` and ``error/carry1``,
        of columns without and with a carry; ``run/R00`` and so on, the exact sums by their longest
        run of carries.
        """
        columns = range(self.layout.digits + 1)
        return {
            "exact": ExactMatch(forced=False),
            "token_accuracy": TokenAccuracy(),
            "chains": ExactMatch(forced=True),
            **{f"error/Z{place:02d}": DigitError(place) for place in columns},
            **{f"error/carry{int(carry)}": CarryError(carry) for carry in (False, True)},
            **{f"run/R{length:02d}": RunMatch(length) for length in columns},
        }

    def target(self, batch: Any) -> SumTarget:
        """The answers, with what the metrics sort them by."""
        tokens, forced = batch
        return SumTarget(tokens, forced, self.layout)
