"""How many sums come out right, and which do not."""

from abc import abstractmethod

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_credit.studies.addition.carries import carries_in, longest_run
from lit_credit.studies.addition.layout import AdditionLayout

__all__ = ["CarryError", "DigitError", "ExactMatch", "RunMatch", "SumTarget", "TokenAccuracy"]


class SumTarget:
    """What the answers are compared with.

    What several metrics of one batch need is computed once.

    Args:
        tokens: the sums, int64 (N, T).
        forced: bool (N,), the sums that are not uniform.
        layout: of the sums.
    """

    def __init__(self, tokens: Tensor, forced: Tensor, layout: AdditionLayout) -> None:
        self.tokens = tokens
        self.forced = forced
        self.answers = tokens[:, layout.answers]  # (N, R)
        self.carries = carries_in(tokens, layout)  # (N, digits + 1)
        self.runs = longest_run(self.carries)  # (N,)


class _Share(Metric):
    """A share of something counted; NaN where there is nothing to count."""

    full_state_update = False
    hits: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("hits", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    @abstractmethod
    def select(self, right: Tensor, target: SumTarget) -> Tensor:
        """What is counted, bool of any shape, of the right answers (N, R)."""

    def update(self, logits: Tensor, target: SumTarget) -> None:
        """Add logits of the answer's rows (N, R, 10), or of all inputs."""
        rows = logits[:, -target.answers.shape[1] :]
        # The largest of NaN would be the first symbol.
        right = (rows.argmax(-1) == target.answers) & ~rows.isnan().any(-1)
        hits = self.select(right, target)
        self.hits += hits.sum()
        self.count += hits.numel()

    def compute(self) -> Tensor:
        """A scalar, 0 to 1."""
        return self.hits / self.count


class ExactMatch(_Share):
    """Share of the sums whose every symbol, "EOS" too, is the most likely one.

    Given the right digits so far, as here, the share is that of greedy decoding: up to its first
    wrong digit, a decoded answer is what was given.

    Args:
        forced: count the sums with a forced run of carries, or only the uniform ones.

    Example:
        >>> layout = AdditionLayout(digits=1)
        >>> tokens = layout.encode(torch.tensor([7, 1]), torch.tensor([6, 1]))
        >>> target = SumTarget(tokens, torch.tensor([False, False]), layout)
        >>> logits = torch.zeros(2, 3, 10)
        >>> logits[0, 0, 3] = logits[0, 1, 1] = 1  # 7 + 6 = 13
        >>> metric = ExactMatch(forced=False)
        >>> metric.update(logits, target)
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better = True

    def __init__(self, forced: bool) -> None:
        super().__init__()
        self.forced = forced

    def select(self, right: Tensor, target: SumTarget) -> Tensor:
        """One entry a sum."""
        return right.all(1)[target.forced == self.forced]


class TokenAccuracy(_Share):
    """Share of the answers' symbols, "EOS" among them, that are right; over uniform sums."""

    higher_is_better = True

    def select(self, right: Tensor, target: SumTarget) -> Tensor:
        """One entry a symbol."""
        return right[~target.forced]


class DigitError(_Share):
    """Share of the uniform sums whose digit at one place is wrong.

    Args:
        place: of the digit, from 0, the lowest.
    """

    higher_is_better = False

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place

    def select(self, right: Tensor, target: SumTarget) -> Tensor:
        """One entry a sum."""
        return ~right[:, self.place][~target.forced]


class CarryError(_Share):
    """Share of the digits of uniform sums that are wrong, of the columns with or without a carry.

    Args:
        carry: count the columns that receive a carry, or those that do not.
    """

    higher_is_better = False

    def __init__(self, carry: bool) -> None:
        super().__init__()
        self.carry = carry

    def select(self, right: Tensor, target: SumTarget) -> Tensor:
        """One entry a digit."""
        columns = (target.carries == self.carry) & ~target.forced[:, None]
        return ~right[:, :-1][columns]


class RunMatch(_Share):
    """Share of the sums, forced ones too, that are right, of a longest run of carries of n columns.

    Args:
        length: of the run; 0 takes the sums without a carry.
    """

    higher_is_better = True

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def select(self, right: Tensor, target: SumTarget) -> Tensor:
        """One entry a sum."""
        return right.all(1)[target.runs == self.length]
