"""Predicting the symbol that follows each position of a sequence."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import Metric

from lit_credit.tasks.added_metrics import ViewedMetric, check_added, with_added
from lit_credit.tasks.base import Task
from lit_credit.tasks.checks import entry, tensor_output

__all__ = ["BitsPerCharacter", "NextToken", "Perplexity"]


class _MeanLoss(Metric):
    """Mean cross-entropy over all positions seen, in nats."""

    full_state_update = False
    higher_is_better = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add logits (N, T, V) and symbols (N, T)."""
        self.total += _nats(logits, target) * target.numel()
        self.count += target.numel()

    def nats(self) -> Tensor:
        return self.total / self.count


class Perplexity(_MeanLoss):
    """``exp`` of the mean cross-entropy over positions.

    Example:
        >>> metric = Perplexity()
        >>> metric.update(torch.zeros(1, 3, 8), torch.tensor([[0, 1, 2]]))
        >>> metric.compute()
        tensor(8.)
    """

    def compute(self) -> Tensor:
        """A scalar, 1 to infinity."""
        return self.nats().exp()


class BitsPerCharacter(_MeanLoss):
    """Mean cross-entropy over positions, in bits.

    Example:
        >>> metric = BitsPerCharacter()
        >>> metric.update(torch.zeros(1, 3, 8), torch.tensor([[0, 1, 2]]))
        >>> metric.compute()
        tensor(3.)
    """

    def compute(self) -> Tensor:
        """A scalar, 0 to infinity."""
        return self.nats() / math.log(2)


class _OfPositions(ViewedMetric):
    """A metric over the positions of all samples."""

    def view(self, output: Any, target: Any) -> tuple[Any, Any]:
        """The logits (N T, V) and the symbols (N T,)."""
        return output.flatten(0, -2), target.flatten()


class NextToken(Task):
    """Batches ``(x, y)`` of symbols (N, T) and their following symbols; cross-entropy in nats.

    The loss is a mean over all positions of all samples. Perplexity and bits per character are
    computed from the same mean.

    Args:
        metrics: metrics by name besides ``bits_per_character`` and ``perplexity``, called with the
            logits (N T, V) and the symbols (N T,) of all positions.

    Raises:
        ValueError: if a metric has one of these names.

    Example:
        >>> batch = torch.zeros(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.long)
        >>> NextToken().loss(torch.zeros(2, 5, 8), batch)
        tensor(2.0794)
    """

    def __init__(self, metrics: dict[str, Metric] | None = None) -> None:
        super().__init__()
        check_added(["bits_per_character", "perplexity"], metrics, self)
        self.added = metrics

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """``(x,)``."""
        return (entry(batch, 0, self),)

    def loss(self, output: Tensor, batch: Any) -> Tensor:
        """The loss of logits (N, T, V) on the batch.

        Raises:
            ValueError: if the first dimensions of the logits are not those of the symbols.
        """
        target, output = entry(batch, 1, self), tensor_output(output, self)
        if output.shape[:-1] != target.shape:
            raise ValueError(
                f"the net's output is {tuple(output.shape)}, expected {tuple(target.shape)} and one"
                " logit a symbol. Use a net that answers at every position."
            )
        return _nats(output, target)

    def metrics(self) -> dict[str, Metric]:
        """``bits_per_character``, ``perplexity``, and those that are added."""
        own = {"bits_per_character": BitsPerCharacter(), "perplexity": Perplexity()}
        found = with_added(own, self.added)
        return {name: m if name in own else _OfPositions(m) for name, m in found.items()}

    def target(self, batch: Any) -> Any:
        """``y`` (N, T)."""
        return batch[1]


def _nats(logits: Tensor, target: Tensor) -> Tensor:
    return cross_entropy(logits.flatten(0, -2), target.flatten())
