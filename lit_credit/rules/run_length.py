"""A schedule that must not end before the run does."""

import math
from typing import Any

from torch.optim.lr_scheduler import ChainedScheduler, OneCycleLR, SequentialLR

from lit_credit.utils.random_state import random_state, set_random_state

__all__ = ["check_length", "largest_steps"]


def check_length(rule: Any, scheduler: Any) -> None:
    """Refuse a scheduler that fails before the run ends.

    Args:
        rule: attached to a Trainer.
        scheduler: its own, or None.

    Raises:
        ValueError: naming the steps that the scheduler has, and those that the run takes.
    """
    largest = largest_steps(scheduler)
    if math.isinf(largest):
        return
    trainer, epochs = rule.trainer, rule.trainer.max_epochs
    steps: float = math.inf if epochs in (None, -1) else epochs
    if rule.lr_interval == "step":
        before = random_state()
        batches = trainer.estimated_stepping_batches  # loads the data
        set_random_state(before)
        # The last training step of an epoch may have fewer updates than the others.
        updates = (trainer.num_training_batches - 1) * rule.updates_per_step + 1
        steps = steps * updates if math.isfinite(steps) and math.isfinite(batches) else math.inf
        if trainer.max_steps != -1:
            steps = min(steps, trainer.max_steps)
    if largest < steps < math.inf:
        raise ValueError(
            f"`lr_scheduler`: {type(scheduler).__name__} has {largest:.0f} steps in all, and the "
            f"run takes {steps:.0f} of them (`max_epochs` {epochs}, `max_steps` "
            f"{trainer.max_steps}). Give it as many steps as the run, or end the run earlier."
        )


def largest_steps(scheduler: Any) -> float:
    """The steps after which a scheduler fails; infinity if it goes on for ever."""
    if isinstance(scheduler, OneCycleLR):
        return float(scheduler.total_steps)
    parts = [largest_steps(part) for part in getattr(scheduler, "_schedulers", ())]
    if isinstance(scheduler, SequentialLR):
        starts, ends = [0, *scheduler._milestones], [*scheduler._milestones, math.inf]
        spans = zip(starts, ends, parts, strict=True)
        return min((a + part for a, b, part in spans if a + part < b), default=math.inf)
    return min(parts, default=math.inf) if isinstance(scheduler, ChainedScheduler) else math.inf
