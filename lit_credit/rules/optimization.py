"""The optimizer of a rule: Trainer options, and steps of a schedule."""

import math
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch.optim import Optimizer

from lit_credit.former_names import former_names
from lit_credit.trainer.trainer import callbacks_of, check_trainer
from lit_credit.utils.both_packages import is_a
from lit_credit.utils.short_text import choice

__all__ = [
    "check_numbers",
    "check_options",
    "made",
    "skip_device_search",
    "step_scheduler",
]


def check_options(trainer: Trainer, who: str) -> None:
    """Refuse Trainer options that have no effect, or another one, under manual optimization.

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


def made(argument: str, make: Callable[..., Any], *given: Any) -> Any:
    """Return ``make(*given)``; its error is raised again with the name of the argument.

    Raises:
        ValueError: if it raises anything.
    """
    try:
        return make(*given)
    except Exception as error:
        raise ValueError(f"`{argument}` cannot be made: {error}") from error


def check_numbers(argument: str, optimizer: Optimizer) -> None:
    """Refuse NaN and inf, which torch accepts as a learning rate or momentum of some optimizers.

    Args:
        argument: name of the argument that made or changed the optimizer, for the error.
        optimizer: the optimizer whose parameter groups are checked.

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


def step_scheduler(scheduler: Any, metrics: Mapping[str, Any]) -> None:
    """Step a scheduler, with its metric if it watches one; do nothing for None.

    Raises:
        MisconfigurationException: if that metric is not logged.
        ValueError: if the scheduler fails at its first step, for example on wrong arguments.
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


def skip_device_search() -> None:
    """Without a GPU, keep Adam and AdamW from searching for its driver at every step.

    At every step both ask whether a GPU is available. Lightning sets an environment variable that
    makes torch search for the driver's library at each such question, which takes 0.2 to 0.4 ms, as
    long as a step of a small net. Lightning does so for processes that are forked after CUDA has
    started; without a GPU there are none.
    """
    if not torch.cuda.is_available():
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


if not TYPE_CHECKING:
    __getattr__ = former_names(__name__)
