"""The task of n-grams: predict the next symbol, of which the true distribution is known."""

from abc import abstractmethod
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import Metric

from lit_credit.tasks.base import Task
from lit_credit.tasks.checks import entry, tensor_output
from lit_credit.utils.ranges import check_choice

__all__ = [
    "ContextDivergence",
    "ExpectedAccuracy",
    "Margin",
    "MemorizedContexts",
    "NGramPrediction",
    "NGramTarget",
]


_FORM = "(x, y, rows, weight)"


class NGramTarget(NamedTuple):
    """The true distributions, and their weights.

    Attributes:
        rows: (N, V), the distribution of the next symbol.
        weight: (N,), the weight of each context in a mean; a weight of zero leaves it out.
    """

    rows: Tensor
    weight: Tensor


class _WeightedMean(Metric):
    """Mean of one value a context."""

    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "weight"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")

    @abstractmethod
    def values(self, logits: Tensor, rows: Tensor) -> Tensor:
        """One value a context, (N,)."""

    def update(self, logits: Tensor, target: NGramTarget) -> None:
        """Add logits (N, V) and their target."""
        weight = target.weight.float()
        # Not a product of vectors, which autocast would round to half precision.
        self.total += (weight * self.values(logits.float(), target.rows.float())).sum()
        self.weight += weight.sum()

    def compute(self) -> Tensor:
        """A scalar."""
        return self.total / self.weight


class ContextDivergence(_WeightedMean):
    """Mean over contexts of KL(pi || p), in nats, p the softmax of the logits.

    Example:
        >>> metric = ContextDivergence()
        >>> target = NGramTarget(torch.tensor([[1.0, 0.0]]), torch.ones(1))
        >>> metric.update(torch.zeros(1, 2), target)
        >>> metric.compute()
        tensor(0.6931)
    """

    higher_is_better = False

    def values(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Cross-entropy less entropy."""
        return cross_entropy(logits, rows, reduction="none") - _entropy(rows)


class ExpectedAccuracy(_WeightedMean):
    """Mean over contexts of the true probability of the net's answer, pi(argmax of the logits).

    Example:
        >>> metric = ExpectedAccuracy()
        >>> target = NGramTarget(torch.tensor([[0.75, 0.25]]), torch.ones(1))
        >>> metric.update(torch.tensor([[0.0, 1.0]]), target)
        >>> metric.compute()
        tensor(0.2500)
    """

    higher_is_better = True

    def values(self, logits: Tensor, rows: Tensor) -> Tensor:
        """The probability of the answer; NaN logits have none."""
        values = rows.gather(1, logits.argmax(1, keepdim=True)).squeeze(1)
        return values.masked_fill(logits.isnan().any(1), torch.nan)


class Margin(_WeightedMean):
    """Mean over contexts of the logit of the most likely symbol less the largest other one.

    Example:
        >>> metric = Margin()
        >>> target = NGramTarget(torch.tensor([[0.75, 0.25]]), torch.ones(1))
        >>> metric.update(torch.tensor([[0.0, 1.0]]), target)
        >>> metric.compute()
        tensor(-1.)
    """

    higher_is_better = True

    def values(self, logits: Tensor, rows: Tensor) -> Tensor:
        """One difference of logits a context."""
        right = rows.argmax(1, keepdim=True)
        wrong = logits.scatter(1, right, -torch.inf).amax(1)
        return logits.gather(1, right).squeeze(1) - wrong


class MemorizedContexts(Metric):
    """Number of contexts where the largest logit is that of a most likely symbol.

    Example:
        >>> metric = MemorizedContexts()
        >>> target = NGramTarget(torch.eye(3), torch.ones(3))
        >>> metric.update(torch.tensor([[1.0, 0.0, 0.0]]).expand(3, 3), target)
        >>> metric.compute()
        tensor(1)
    """

    full_state_update = False
    higher_is_better = True
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: NGramTarget) -> None:
        """Add logits (N, V) and their target."""
        rows = target.rows
        answer = rows.gather(1, logits.argmax(1, keepdim=True)).squeeze(1)
        counted = (target.weight > 0) & ~logits.isnan().any(1)
        self.count += ((answer == rows.amax(1)) & counted).sum()

    def compute(self) -> Tensor:
        """A whole number, 0 to the number of contexts."""
        return self.count


class NGramPrediction(Task):
    """Batches ``(x, y, rows, weight)``; see :class:`lit_credit.studies.ngram.NGram`.

    Both losses have the same gradient on average, and where y are rows.

    Args:
        loss: ``next_token`` is the cross-entropy with the symbol that followed, y; ``divergence``
            is the Kullback-Leibler divergence from ``rows``. Both are in nats.

    Raises:
        ValueError: if ``loss`` is neither.

    Example:
        >>> x, rows = torch.zeros(1, 2, dtype=torch.long), torch.tensor([[0.5, 0.5, 0.0, 0.0]])
        >>> batch = x, torch.tensor([1]), rows, torch.ones(1)
        >>> NGramPrediction("next_token").loss(torch.zeros(1, 4), batch)
        tensor(1.3863)
        >>> NGramPrediction("divergence").loss(torch.zeros(1, 4), batch)
        tensor(0.6931)
    """

    def __init__(self, loss: Literal["next_token", "divergence"] = "next_token") -> None:
        super().__init__()
        check_choice(["next_token", "divergence"], loss=loss)
        self.loss_kind = loss

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """``(x,)``."""
        return (entry(batch, 0, self, _FORM),)

    def loss(self, output: Tensor, batch: Any) -> Tensor:
        """The loss of logits (N, V) on the batch, a mean over samples with their weights.

        Raises:
            ValueError: if the logits are not of the rows' shape.
        """
        entry(batch, 3, self, _FORM)
        _, y, rows, weight = batch
        output = tensor_output(output, self)
        if output.shape != rows.shape:
            raise ValueError(
                f"the net's output is {tuple(output.shape)}, expected {tuple(rows.shape)}, that is "
                "(samples, symbols). Use a net that answers once a context, with the `vocab_size` "
                "of the data."
            )
        sampled = self.loss_kind == "next_token"
        losses = cross_entropy(output, y if sampled else rows, reduction="none")
        mean: Tensor = (weight * (losses if sampled else losses - _entropy(rows))).mean()
        return mean

    def metrics(self) -> dict[str, Metric]:
        """``kl``, ``accuracy``, ``margin`` and ``memorized``."""
        return {
            "kl": ContextDivergence(),
            "accuracy": ExpectedAccuracy(),
            "margin": Margin(),
            "memorized": MemorizedContexts(),
        }

    def target(self, batch: Any) -> NGramTarget:
        """``rows`` and ``weight``."""
        return NGramTarget(*batch[2:])


def _entropy(rows: Tensor) -> Tensor:
    entropies: Tensor = torch.special.entr(rows).sum(-1)
    return entropies
