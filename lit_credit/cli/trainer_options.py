"""Checking the options of the Trainer, and finding the option that caused an error."""

import logging
import re
from collections.abc import Callable, Mapping
from inspect import signature
from itertools import combinations
from typing import Any

from lightning.pytorch import Callback, Trainer

from lit_credit.cli.boundary import reason

__all__ = ["blamed_option", "check_options"]

_LEAST = {
    "check_val_every_n_epoch": (1, "an epoch to validate after; `limit_val_batches: 0` never does"),
    "log_every_n_steps": (0, "steps between two points of a curve"),
    "num_sanity_val_steps": (-1, "batches to validate on before training; -1 takes all"),
}
"""Smallest valid values of options that Lightning does not check."""


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse values that Lightning accepts, but that later fail or have no effect.

    Args:
        options: arguments of the Trainer by name.

    Raises:
        ValueError: naming option, value and what is expected.
    """
    for name, (least, meaning) in _LEAST.items():
        value = options.get(name)
        if isinstance(value, int | float) and not value >= least:
            raise ValueError(f"`trainer.{name}` is {value}, expected at least {least}: {meaning}.")
    interval = options.get("val_check_interval")
    if isinstance(interval, int | float) and not interval > 0:
        raise ValueError(
            f"`trainer.val_check_interval` is {interval}, expected above 0: a fraction of an epoch "
            "(0.5), or a whole number of training batches. `limit_val_batches: 0` validates never."
        )
    for unit in ("epochs", "steps"):
        first, last = options.get(f"min_{unit}"), options.get(f"max_{unit}")
        if first is not None and last is not None and 0 <= last < first:
            raise ValueError(
                f"`trainer.min_{unit}` is {first}, above `trainer.max_{unit}`, {last}; the run "
                "would end before it. Raise the one, or lower the other."
            )


def blamed_option(error: Exception, options: Mapping[str, Any]) -> str:
    """The text after "`trainer` cannot be made", with the options that caused the error.

    Args:
        error: raised by the Trainer.
        options: arguments of the Trainer by name.

    Example:
        >>> blamed_option(ValueError("`devices` is no number."), {"devices": "two"})
        " with `devices`='two': `devices` is no number."
    """
    if twins := _twins(options.get("callbacks")):
        return f": {twins}"
    text = reason(error)
    parameters = signature(Trainer.__init__).parameters
    given = {
        name: value
        for name, value in options.items()
        if isinstance(value, str | int | float) and value != parameters[name].default
    }
    named = [name for name in given if re.search(rf"\b{name}\b", text)]
    named = named or [name for name in given if _fails_alone(name, given[name])]
    shown = ", ".join(f"`{name}`={given[name]!r}" for name in named)
    return f"{shown and f' with {shown}'}: {text}"


def _fails_alone(name: str, value: Any) -> bool:
    """Whether building a Trainer with this option alone fails too."""
    if name == "barebones":
        return False
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        Trainer(**{"logger": False, "enable_checkpointing": False, name: value})
    except Exception:
        return True
    finally:
        log.setLevel(level)
    return False


def _twins(callbacks: Any) -> str:
    """Name two callbacks with the same state key in a checkpoint; empty if there are none."""
    numbered = list(enumerate(callbacks if isinstance(callbacks, list) else []))
    for (i, one), (j, other) in combinations(numbered, 2):
        if type(one) is type(other) and _has_state(one) and one.state_key == other.state_key:
            return (
                f"`trainer.callbacks[{i}]` and `trainer.callbacks[{j}]` are both "
                f"{type(one).__name__} with the same arguments that tell two apart in a "
                f"checkpoint: {one.state_key.partition('{')[2].rstrip('}') or 'none'}. Change one "
                "of these, or leave one callback out; `callbacks+:` adds to the default callbacks, "
                "and `callbacks:` replaces them."
            )
    return ""


def _has_state(callback: Any) -> bool:
    own: Callable[..., Any] = type(callback).state_dict
    return own is not Callback.state_dict
