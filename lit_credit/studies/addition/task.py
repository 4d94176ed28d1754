"""The task of addition: the loss of the answers, and which sums come out right."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import Metric

from lit_credit.studies.addition.layout import AdditionLayout, carries_in, longest_run
from lit_credit.tasks.base import Task
from lit_credit.tasks.checks import entry, tensor_output

__all__ = [
    "AdditionTask",
    "CarryError",
    "DigitError",
    "ExactMatch",
    "RunMatch",
    "SumTarget",
    "TokenAccuracy",
]


class SumTarget:
    """The right answers, with the carries and runs that metrics sort them by.

    Several metrics of one batch share it, so that each part is computed once.

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
        """The entries to count, bool of any shape, given which answers are right, bool (N, R)."""

    def update(self, logits: Tensor, target: SumTarget) -> None:
        """Add logits of the answer's rows (N, R, 10), or of all inputs."""
        rows = logits[:, -target.answers.shape[1] :]
        # argmax of NaN is 0, a digit.
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
        """All metrics, by name.

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
        """The answers, the carries and the runs."""
        tokens, forced = batch
        return SumTarget(tokens, forced, self.layout)
