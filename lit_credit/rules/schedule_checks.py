"""Finding learning rate schedules that would fail, before training."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ChainedScheduler, OneCycleLR, SequentialLR

from lit_credit.rules.optimization import check_numbers, step_scheduler
from lit_credit.utils.private_names import milestones, schedulers_within
from lit_credit.utils.random_state import random_state, set_random_state

__all__ = ["check_length", "largest_steps", "try_scheduler"]


def try_scheduler(
    make: Callable[..., Any],
    make_optimizer: Callable[..., Any],
    groups: Sequence[Mapping[str, Any]],
) -> None:
    """Step a scheduler once on a small twin of the optimizer, before any work could be lost.

    Args:
        make: makes the scheduler.
        make_optimizer: makes the optimizer; the twin has one number per group.
        groups: the parameter groups of the real optimizer.

    Raises:
        ValueError: if the scheduler fails at its first step, or sets a learning rate that is NaN
            or infinite.
    """
    try:
        small = [{**group, "params": [nn.Parameter(torch.zeros(1))]} for group in groups]
        optimizer = make_optimizer(small)
        scheduler = make(optimizer)
    except Exception:  # for example an optimizer that takes only matrices
        return
    with warnings.catch_warnings():
        # torch warns, since the optimizer has not stepped.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        step_scheduler(scheduler, {})
    check_numbers("lr_scheduler", optimizer)


def check_length(rule: Any, scheduler: Any) -> None:
    """Refuse a scheduler that fails before the run ends.

    Args:
        rule: a rule that is attached to a Trainer.
        scheduler: the rule's scheduler, or None.

    Raises:
        ValueError: naming the steps that the scheduler has, and the steps that the run takes.
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
    """The number of steps after which a scheduler fails; infinity if it never does."""
    if isinstance(scheduler, OneCycleLR):
        return float(scheduler.total_steps)
    parts = [largest_steps(part) for part in schedulers_within(scheduler)]
    if isinstance(scheduler, SequentialLR):
        starts, ends = [0, *milestones(scheduler)], [*milestones(scheduler), math.inf]
        spans = zip(starts, ends, parts, strict=True)
        return min((a + part for a, b, part in spans if a + part < b), default=math.inf)
    return min(parts, default=math.inf) if isinstance(scheduler, ChainedScheduler) else math.inf
