"""Describing the configuration of a run as plain data for its checkpoints."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lit_credit.protocols import RuleProtocol, asked
from lit_credit.utils.private_names import SCHEDULER_ARGUMENTS

__all__ = [
    "PLACES",
    "arguments_of",
    "configuration",
    "describe_data",
    "describe_groups",
    "describe_scheduler",
    "describe_trainer",
    "path_of",
    "plain",
]

PLACES = {"root", "download", "num_workers", "pin_memory", "persistent_workers", "prefetch_factor"}
"""Arguments of a datamodule that say where data lie and how they are read, not what they are."""


_TRAINER = ("precision", "limit_train_batches", "overfit_batches")


_MOVING = {"last_epoch", "base_lrs", "T_cur", "T_i", "best", "num_bad_epochs", "cooldown_counter"}
_MOVING |= {"verbose", "mode_worse"}
"""Attributes of schedulers that their steps change, or that add no information."""


_NOTHING = object()


def configuration(
    module: LightningModule, optimizer: Optimizer, groups: Any, scheduler: Any
) -> Any:
    """The configuration of a run, as plain data.

    Args:
        module: a rule that is attached to a Trainer.
        optimizer: the optimizer of the rule.
        groups: from :func:`describe_groups`, before a scheduler is made.
        scheduler: from :func:`describe_scheduler`, or None.
    """
    trainer = module.trainer
    return {
        "optimizer": {"class_path": path_of(type(optimizer)), "groups": groups},
        "lr_scheduler": scheduler,
        "data": describe_data(getattr(trainer, "datamodule", None)),
        "trainer": describe_trainer(trainer),
        **asked(module, RuleProtocol.run_configuration, {}),
    }


def describe_groups(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Hyperparameters of parameter groups, with the learning rate before any scheduler's factor."""
    found = []
    for group in groups:
        numbers = {name: plain(value) for name, value in group.items() if name != "params"}
        numbers["lr"] = numbers.pop("initial_lr", numbers.get("lr"))
        found.append({k: v for k, v in numbers.items() if v is not _NOTHING})
    return found


def describe_scheduler(scheduler: Any, optimizer: Optimizer, before: Sequence[Any]) -> Any:
    """Class and arguments of a scheduler that has just been made.

    Args:
        scheduler: torch's, or anything that works like it.
        optimizer: the optimizer of the scheduler.
        before: what :func:`describe_groups` returned before the scheduler was made. Values that the
            scheduler added to the groups, such as the largest rates of OneCycleLR, are counted as
            its arguments.
    """
    added = []
    for group, old in zip(optimizer.param_groups, before, strict=True):
        numbers = {k: plain(v) for k, v in group.items() if k not in ("params", "lr")}
        if numbers.get("initial_lr") == old.get("lr"):
            numbers.pop("initial_lr", None)
        added.append({k: v for k, v in numbers.items() if v is not _NOTHING and old.get(k) != v})
    arguments = arguments_of(vars(scheduler))
    if any(added):
        arguments["groups"] = added
    return {"class_path": path_of(type(scheduler)), "init_args": arguments}


def arguments_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a scheduler, or of its saved state, that its steps do not change."""
    found = {}
    for name, value in attributes.items():
        if name in _MOVING or (name.startswith("_") and name not in SCHEDULER_ARGUMENTS):
            continue
        if (described := _attribute(value)) is not _NOTHING:
            found[name.lstrip("_")] = described
    return found


def describe_data(data: Any) -> Any:
    """Class of a datamodule, and those arguments that it keeps under their own names."""
    if data is None:
        return None
    found = {}
    for kind in reversed(type(data).__mro__):
        if (init := vars(kind).get("__init__")) is not None:
            for name in inspect.signature(init).parameters:
                if (value := plain(vars(data).get(name, _NOTHING))) is not _NOTHING:
                    found[name] = value
    return {"class_path": path_of(type(data)), "init_args": found}


def describe_trainer(trainer: Trainer) -> dict[str, Any]:
    """The Trainer options that change what is computed, not how long or where."""
    return {name: plain(getattr(trainer, name, None)) for name in _TRAINER}


def path_of(kind: type) -> str:
    """Import path of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def plain(value: Any) -> Any:
    """A value as plain data: None, numbers, text, lists and dicts; a marker for anything else."""
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else _NOTHING
    if isinstance(value, Mapping):
        pairs = {str(key): plain(item) for key, item in value.items()}
        return _NOTHING if _NOTHING in pairs.values() else pairs
    if isinstance(value, list | tuple):
        items = [plain(item) for item in value]
        return _NOTHING if any(item is _NOTHING for item in items) else items
    return value if isinstance(value, bool | int | float | str | None) else _NOTHING


def _attribute(value: Any) -> Any:
    if isinstance(value, LRScheduler | ReduceLROnPlateau):
        return {"class_path": path_of(type(value)), "init_args": arguments_of(vars(value))}
    if isinstance(value, list | tuple) and value:
        items = [_attribute(item) for item in value]
        return _NOTHING if any(item is _NOTHING for item in items) else items
    if inspect.isfunction(value):
        return value.__qualname__
    return plain(value)
