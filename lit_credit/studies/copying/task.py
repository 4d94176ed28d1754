"""The task of copying: predict the next symbol; the error counts the symbols of the copy."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_credit.headlines import Headline, Panel
from lit_credit.tasks.next_token import NextToken

__all__ = ["CopyError", "CopyTarget", "PatternCopying"]


class CopyTarget(NamedTuple):
    """The right symbols, and where they count.

    Attributes:
        symbols: (N, T), the symbol that follows each position.
        scored: bool (N, T), the positions where the error is taken.
        ood: bool (N,), the samples that are out of distribution.
    """

    symbols: Tensor
    scored: Tensor
    ood: Tensor


class CopyError(Metric):
    """Share of the scored symbols that are not the most likely ones; NaN where there are none.

    Args:
        ood: count the samples that are out of distribution, or only those in distribution.

    Example:
        >>> metric = CopyError(ood=False)
        >>> scored, ood = torch.ones(1, 2).bool(), torch.tensor([False])
        >>> target = CopyTarget(torch.tensor([[0, 1]]), scored, ood)
        >>> metric.update(torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]), target)
        >>> metric.compute()
        tensor(0.5000)
    """

    full_state_update = False
    higher_is_better = False
    wrong: Tensor
    count: Tensor

    def __init__(self, ood: bool) -> None:
        super().__init__()
        self.ood = ood
        self.add_state("wrong", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: CopyTarget) -> None:
        """Add logits (N, T, V) and their target."""
        scored = target.scored & (target.ood == self.ood)[:, None]
        # argmax of NaN is 0, the first symbol.
        wrong = (logits.argmax(-1) != target.symbols) | logits.isnan().any(-1)
        self.wrong += (wrong & scored).sum()
        self.count += scored.sum()

    def compute(self) -> Tensor:
        """A scalar, 0 to 1."""
        return self.wrong / self.count


class PatternCopying(NextToken):
    """Batches ``(x, y, scored, ood)``, see :class:`lit_credit.studies.copying.Copying`.

    The loss is the cross-entropy over all positions; the error is taken where ``scored`` says, in
    and out of distribution apart.
    """

    headline = (
        Headline(
            "ood_error",
            form=".3f",
            order=10,
            better="down",
            panel=Panel(
                "Error out of distribution",
                "share of copied symbols, validation data",
                reach=(0, 1),
                slot="metric",
                order=4,
            ),
        ),
        Headline("id_error", form=".3f", order=10, better="down"),
    )

    def __init__(self) -> None:
        super().__init__()

    def metrics(self) -> dict[str, Metric]:
        """``ood_error`` and ``id_error``."""
        return {"ood_error": CopyError(ood=True), "id_error": CopyError(ood=False)}

    def target(self, batch: Any) -> CopyTarget:
        """``y``, ``scored`` and ``ood``."""
        return CopyTarget(*batch[1:])
