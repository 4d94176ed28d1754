"""Options of the Trainer, parameter groups, and the step of a scheduler."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch import nn

from lit_credit.utils.trainer import callbacks_of, check_trainer

__all__ = ["check_options", "made", "parameter_groups", "step_scheduler"]


def check_options(trainer: Trainer, who: str) -> None:
    """Refuse what does nothing, or something else, under manual optimization.

    Args:
        trainer: the Trainer of the rule.
        who: the rule's class, for the error.

    Raises:
        MisconfigurationException: naming the option and what to use instead.
    """
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
    if any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks_of(trainer)):
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
        for parameter in net.get_submodule(name).parameters()
    }
    groups: dict[str, list[nn.Parameter]] = {"units": [], "readout": [], "other": []}
    for parameter in net.parameters():
        if parameter.requires_grad:
            groups[group_of.get(id(parameter), "other")].append(parameter)
    return [{"params": group, "name": name} for name, group in groups.items() if group]


def made(argument: str, make: Callable[..., Any], *given: Any) -> Any:
    """What ``make`` returns; what it refuses is refused in the name of the argument.

    Raises:
        ValueError: if it raises TypeError or ValueError.
    """
    try:
        return make(*given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{argument}` cannot be made: {error}") from error


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
                f"one of: {', '.join(metrics)}."
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
