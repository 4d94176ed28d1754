"""Options of the Trainer, parameter groups, and the step of a scheduler."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch import nn
from torch.optim import Optimizer

from lit_credit.inspect.unit_names import unit_modules
from lit_credit.trainer.trainer import callbacks_of, check_trainer
from lit_credit.utils.both_packages import is_a
from lit_credit.utils.short_text import choice

__all__ = ["check_options", "made", "parameter_groups", "step_scheduler"]


def check_options(trainer: Trainer, who: str) -> None:
    """Refuse what does nothing, or something else, under manual optimization.

    Args:
        trainer: the Trainer of the rule.
        who: the rule's class, for the error.

    Raises:
        MisconfigurationException: naming the option and what to use instead.
    """
    if not isinstance(trainer, Trainer):
        raise MisconfigurationException(
            f"{who} is a rule, and rules are LightningModules of `lightning.pytorch`, but the "
            f"Trainer is of `{type(trainer).__module__.partition('.')[0]}`. Take `Trainer`, "
            "`LightningCLI` and loggers from `lightning.pytorch`; diagnostics work with both."
        )
    check_trainer(trainer, who)
    for option, value, default, remedy in (
        ("gradient_clip_val", trainer.gradient_clip_val, None, "the rule's `clip_norm`"),
        ("accumulate_grad_batches", trainer.accumulate_grad_batches, 1, "`batch_size`"),
    ):
        if value not in (default, 0):
            raise MisconfigurationException(
                f"`Trainer({option}={value})` does nothing under manual optimization. "
                f"Leave it out and set {remedy} instead."
            )
    if any(is_a(callback, StochasticWeightAveraging) for callback in callbacks_of(trainer)):
        raise MisconfigurationException(
            f"StochasticWeightAveraging makes a last pass without updates for batch norms, which "
            f"under manual optimization, as that of {who}, would train the averaged weights. Use "
            "WeightAveraging or EMAWeightAveraging of Lightning 2.6."
        )


def parameter_groups(
    net: nn.Module, units: Sequence[str], readout: Sequence[str]
) -> list[dict[str, Any]]:
    """Trainable parameters in groups named "units", "readout" and "other", without empty ones."""
    group_of = {
        id(parameter): group
        for group, names in (("units", units), ("readout", readout))
        for name in names
        for part in unit_modules(net, name)
        for parameter in part.parameters()
    }
    groups: dict[str, list[nn.Parameter]] = {"units": [], "readout": [], "other": []}
    for parameter in net.parameters():
        if parameter.requires_grad:
            groups[group_of.get(id(parameter), "other")].append(parameter)
    return [{"params": group, "name": name} for name, group in groups.items() if group]


def made(argument: str, make: Callable[..., Any], *given: Any) -> Any:
    """What ``make`` returns; what it refuses is refused in the name of the argument.

    Raises:
        ValueError: if it raises anything.
    """
    try:
        return make(*given)
    except Exception as error:
        raise ValueError(f"`{argument}` cannot be made: {error}") from error


def check_numbers(argument: str, optimizer: Optimizer) -> None:
    """Refuse NaN and inf, which torch takes as a learning rate or momentum of some optimizers.

    Args:
        argument: that made or changed the optimizer, for the error.
        optimizer: whose groups are looked at.

    Raises:
        ValueError: naming the number.
    """
    for group in optimizer.param_groups:
        for name, value in group.items():
            numbers = value if isinstance(value, tuple | list) and name != "params" else [value]
            if not all(math.isfinite(x) for x in numbers if isinstance(x, float)):
                raise ValueError(
                    f"`{argument}`: `{name}` of {type(optimizer).__name__} is {value}, expected a "
                    "finite number."
                )


def try_scheduler(
    make: Callable[..., Any],
    make_optimizer: Callable[..., Any],
    groups: Sequence[Mapping[str, Any]],
) -> None:
    """Step a scheduler of a small twin of the optimizer once, before any work could be lost.

    Args:
        make: makes the scheduler.
        make_optimizer: makes the optimizer, here of one number a group.
        groups: the groups of the optimizer proper.

    Raises:
        ValueError: if the scheduler fails at its first step, or sets a learning rate that is NaN
            or infinite.
    """
    try:
        small = [{**group, "params": [nn.Parameter(torch.zeros(1))]} for group in groups]
        optimizer = make_optimizer(small)
        scheduler = make(optimizer)
    except Exception:  # such as one for matrices only, or with a state of its own
        return
    with warnings.catch_warnings():
        # The optimizer has taken no step.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        step_scheduler(scheduler, {})
    check_numbers("lr_scheduler", optimizer)


def step_scheduler(scheduler: Any, metrics: Mapping[str, Any]) -> None:
    """Step a scheduler, if there is one, by the metric that it watches, if it does.

    Raises:
        MisconfigurationException: if that metric is not logged.
        ValueError: if the scheduler fails at its very first step, as after wrong arguments.
    """
    name = getattr(scheduler, "monitor", None)
    if name is not None:
        if name not in metrics:
            raise MisconfigurationException(
                f"`lr_scheduler` watches {name!r}, which is not logged. Set its `monitor` to "
                f"one of: {choice(metrics, name)}."
            )
        scheduler.step(metrics[name])
        return
    if scheduler is None:
        return
    first = getattr(scheduler, "last_epoch", None) == 0
    try:
        scheduler.step()
    except (ArithmeticError, LookupError, TypeError) as error:
        if not first:
            raise
        raise ValueError(
            f"`lr_scheduler`: {type(scheduler).__name__} fails at its first step: {error}. "
            "Check its arguments."
        ) from error
