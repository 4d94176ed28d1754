"""Training losses at the end of short runs, and their table."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from torch.optim import Optimizer

from lit_credit.rules.base import CreditRule


def last_loss(rule: CreditRule, optimizer: Optimizer, batches: Iterable[Any], steps: int) -> float:
    """The mean loss of the last 25 steps."""
    losses = []
    for _, batch in zip(range(steps), batches, strict=False):
        optimizer.zero_grad()
        loss, scalar = rule.surrogate(batch)
        scalar.backward()
        optimizer.step()
        losses.append(loss.item())
    return statistics.mean(losses[-25:])


def print_losses(words: str, losses: Sequence[float]) -> None:
    """A line: mean and standard deviation over seeds."""
    mean, sd = statistics.mean(losses), statistics.stdev(losses)
    print(f"{words} {mean:8.3g} +- {sd:.2g}", flush=True)
