"""A learning rate schedule: linear warmup, then cosine decay."""

import math

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lit_credit.utils.ranges import check_range

__all__ = ["WarmupCosine"]


class WarmupCosine(LRScheduler):
    r"""Learning rate that rises linearly, then falls by a cosine to a share of its largest value.

    After t steps,

    .. math:: \eta_t / \eta = \begin{cases} (t + 1) / w & t < w \\
        f + (1 - f) (1 + \cos(\pi (t - w) / (T - w))) / 2 & w \le t \le T \end{cases}

    Args:
        optimizer: its learning rates are the largest ones.
        warmup: steps w until the largest rate is reached.
        total: steps T after which the rate stays at its final share f.
        floor: the final share f of the largest rate.
        last_epoch: as in torch's schedulers.

    Raises:
        ValueError: if ``warmup`` is not below ``total``, or ``floor`` is out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: int,
        total: int,
        floor: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        if not 0 <= warmup < total:
            raise ValueError(f"`warmup` is {warmup}, expected 0 or more, below `total`, {total}.")
        check_range(total=total)
        check_range(0, 1, floor=floor, remedy="It is a share of the largest rate.")
        self.warmup, self.total, self.floor = warmup, total, floor
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each parameter group at this step."""
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]

    def factor(self, step: int) -> float:
        """The share of the largest rate for the update that follows ``step`` others."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = min((step - self.warmup) / (self.total - self.warmup), 1.0)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2
