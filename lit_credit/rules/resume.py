"""A run that goes on: what is configured now, against what the checkpoint was saved with."""

import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lightning.pytorch import LightningModule
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_credit.protocols import RuleProtocol, asked
from lit_credit.rules.described import (
    PLACES,
    arguments_of,
    describe_data,
    describe_groups,
    describe_trainer,
    path_of,
    plain,
)
from lit_credit.runs.trusted_classes import imported

__all__ = ["POLICIES", "Difference", "configuration", "differences", "reconcile", "saved_with"]

POLICIES = ("refuse", "configured", "checkpoint")
_ELSEWHERE = {"optimizer", "lr_scheduler", "_instantiator", "_class_path"}
"""Arguments of a rule that are compared by what was made of them."""
_SEEN = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
_NONE = "none"
_LONGEST = 60


class Difference(NamedTuple):
    """An argument, the value that a checkpoint was saved with, and the one configured now."""

    at: str
    saved: Any
    configured: Any

    def __str__(self) -> str:
        return f"{self.at} {_short(self.saved)} there, {_short(self.configured)} here"


def configuration(
    module: LightningModule, optimizer: Optimizer, groups: Any, scheduler: Any
) -> Any:
    """What a run does, as plain data.

    Args:
        module: a rule that is attached to a Trainer.
        optimizer: its own.
        groups: from :func:`lit_credit.rules.described.describe_groups`, before a scheduler is made.
        scheduler: from :func:`lit_credit.rules.described.describe_scheduler`, or None.
    """
    trainer = module.trainer
    return {
        "optimizer": {"class_path": path_of(type(optimizer)), "groups": groups},
        "lr_scheduler": scheduler,
        "data": describe_data(getattr(trainer, "datamodule", None)),
        "trainer": describe_trainer(trainer),
        **asked(module, RuleProtocol.run_configuration, {}),
    }


def saved_with(checkpoint: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration in a checkpoint; of one of version 0.2 or older what its states tell.

    Args:
        checkpoint: as saved by Lightning.
        now: the configuration of the run that is to go on.
    """
    found = checkpoint.get("configuration")
    if isinstance(found, Mapping):
        return dict(found)
    arguments = checkpoint.get("hyper_parameters") or {}
    states, schedulers = checkpoint["optimizer_states"], checkpoint.get("lr_schedulers") or []
    if len(states) != 1:
        return {}
    moved = {"momentum", "betas"} if any("base_momentum" in g for g in _groups(states[0])) else ()
    groups = [
        {name: value for name, value in group.items() if name not in moved}
        for group in describe_groups(_groups(states[0]))
    ]
    scheduler = None
    if schedulers:
        known = now["lr_scheduler"] or {}
        kind = imported(known.get("class_path"))
        names = inspect.signature(kind).parameters if isinstance(kind, type) else ()
        state = {k: v for k, v in arguments_of(schedulers[0]).items() if k in names}
        added = (known.get("init_args") or {}).get("groups") or []
        if len(added) == len(groups):  # what OneCycleLR and CyclicLR keep in the groups
            raw = _groups(states[0])
            state["groups"] = [
                {name: old[name] for name in new if name in old and name not in moved}
                for new, old in zip(added, raw, strict=True)
            ]
            for group, new in zip(groups, added, strict=True):
                if "initial_lr" in new:  # written over the optimizer's own rate
                    group.pop("lr", None)
        path = _class_path(arguments.get("lr_scheduler")) or known.get("class_path") or "unknown"
        scheduler = {"class_path": path, "init_args": state}
    path = _class_path(arguments.get("optimizer")) or now["optimizer"]["class_path"]
    return {"optimizer": {"class_path": path, "groups": groups}, "lr_scheduler": scheduler}


def differences(
    saved: Mapping[str, Any],
    now: Mapping[str, Any],
    saved_arguments: Mapping[str, Any],
    arguments: Mapping[str, Any],
) -> list[Difference]:
    """What differs in two configurations and in the arguments of their rules.

    Only what both tell of is compared: versions and ways to start a run write down more or less.
    """
    found: list[Difference] = []
    for name in ("optimizer", "lr_scheduler", "data", "trainer", "seed_everything"):
        if name in saved and name in now:
            found += _differences(saved[name], now[name], name)
    for name in arguments:
        if name in saved_arguments and name not in _ELSEWHERE:
            found += _differences(plain(saved_arguments[name]), plain(arguments[name]), name)
    return list({str(difference): difference for difference in found}.values())


def reconcile(
    module: Any, checkpoint: dict[str, Any], optimizer: Optimizer, scheduler: Any, now: Any
) -> dict[str, Any]:
    """Have a checkpoint, before it is restored, do what its ``on_resume`` says.

    Args:
        module: the rule; its ``on_resume`` is ``refuse``, ``configured`` or ``checkpoint``.
        checkpoint: that Lightning is about to restore; its states are replaced where the
            configured values are taken.
        optimizer: as configured.
        scheduler: as configured, or None.
        now: the configuration of the run.

    Returns:
        The configuration that the run goes on with.

    Raises:
        ValueError: if something differs and is not to be, or cannot be, taken.
    """
    policy = module.on_resume
    if policy not in POLICIES:
        raise ValueError(f"`on_resume` is {policy!r}, expected one of {', '.join(POLICIES)}.")
    saved = saved_with(checkpoint, now)
    old_arguments = checkpoint.get("hyper_parameters") or {}
    found = differences(saved, now, old_arguments, module.hparams)
    if not found:
        return {**saved, **now}
    source = getattr(module.trainer, "ckpt_path", None) or "the checkpoint"
    if policy == "refuse":
        raise ValueError(
            f"{source} was saved with other values than are configured: {_listed(found)}. Take the "
            "new ones with `--on_resume configured`, or those of the checkpoint with "
            "`--on_resume checkpoint`; in Python set `on_resume` of the rule."
        )
    if policy == "checkpoint":
        if stuck := [difference for difference in found if not _restorable(difference)]:
            raise ValueError(
                f"`on_resume` is 'checkpoint', but a rule, data and Trainer that are built already "
                f"cannot take from {source}: {_listed(stuck)}. Build them with these values."
            )
        return {**now, **{name: saved[name] for name in ("optimizer", "lr_scheduler")}}
    _take_configured(checkpoint, optimizer, scheduler, found, old_arguments, module.lr_interval)
    if any(difference.at == "seed_everything" for difference in found):
        module._loaded_random_state = None
    return dict(now)


def _differences(saved: Any, now: Any, at: str) -> Iterator[Difference]:
    if isinstance(saved, Mapping) and isinstance(now, Mapping):
        if "class_path" in saved and "class_path" in now:
            yield from _of_classes(saved, now, at)
            return
        if at == "trainer":
            for name in now:
                if name in saved:
                    yield from _differences(saved[name], now[name], f"{at}.{name}")
            return
    lists = isinstance(saved, list) and isinstance(now, list) and len(saved) == len(now)
    if lists and all(_class_path(node) for node in (*saved, *now)):
        for number, pair in enumerate(zip(saved, now, strict=True)):
            yield from _differences(*pair, f"{at}[{number}]")
        return
    if not _equal(saved, now):
        yield Difference(at, *(_class_path(node) or node for node in (saved, now)))


def _of_classes(saved: Mapping[str, Any], now: Mapping[str, Any], at: str) -> Iterator[Difference]:
    paths = saved["class_path"], now["class_path"]
    if paths[0] != paths[1] and (
        imported(paths[0]) is None or imported(paths[0]) is not imported(paths[1])
    ):
        yield Difference(at, *paths)
        return
    old, new = (dict(node.get("init_args") or {}) for node in (saved, now))
    pairs = [(old, new)]
    ours, theirs = (
        node.get("groups", args.pop("groups", [])) for node, args in ((now, new), (saved, old))
    )
    if len(ours) != len(theirs):
        yield Difference(at, f"{len(theirs)} parameter groups", f"{len(ours)} parameter groups")
        return
    for one, other in (*pairs, *zip(theirs, ours, strict=True)):
        for name in other:
            if name in one and not (at == "data" and name in PLACES):
                yield from _differences(one[name], other[name], f"{at}.{name}")


def _restorable(difference: Difference) -> bool:
    """Whether the states of optimizer and scheduler bring the value with them."""
    part, _, argument = difference.at.partition(".")
    return bool(argument) and part in ("optimizer", "lr_scheduler") and argument != "lr_lambdas"


def _take_configured(
    checkpoint: dict[str, Any],
    optimizer: Optimizer,
    scheduler: Any,
    found: list[Difference],
    old_arguments: Mapping[str, Any],
    interval: str,
) -> None:
    """Replace hyperparameters and schedule in the states; moments stay."""
    changed = {difference.at.partition(".")[0] for difference in found}
    if not changed & {"optimizer", "lr_scheduler", "lr_interval"}:
        return
    state = checkpoint["optimizer_states"][0]
    schedulers = checkpoint.get("lr_schedulers") or []
    groups: list[dict[str, Any]] = optimizer.state_dict()["param_groups"]
    states = []
    if isinstance(scheduler, ReduceLROnPlateau):
        # It has no schedule to step through: what it has seen stays, and so does the rate.
        if schedulers and not any(d.at in ("optimizer", "optimizer.lr") for d in found):
            for group, old in zip(groups, _groups(state), strict=True):
                group["lr"] = old["lr"]
        seen = schedulers[0] if schedulers else {}
        kept = {name: seen[name] for name in _SEEN if seen.get("mode") == scheduler.mode}
        states = [{**scheduler.state_dict(), **kept}]
    elif scheduler is not None:
        same = schedulers and old_arguments.get("lr_interval", interval) == interval
        taken = _position(schedulers[0]) if same else None
        if taken is None:
            taken = checkpoint["global_step" if interval == "step" else "epoch"]
        _replay(scheduler, int(taken))
        groups, states = optimizer.state_dict()["param_groups"], [scheduler.state_dict()]
    if any(difference.at == "optimizer" for difference in found):  # of another class
        state = {**optimizer.state_dict(), "state": {}}
    for group, old in zip(groups, _groups(state), strict=True):
        group["params"] = old["params"]
    checkpoint["optimizer_states"] = [{**state, "param_groups": groups}]
    checkpoint["lr_schedulers"] = states


def _replay(scheduler: Any, steps: int) -> None:
    """Step a new scheduler to where the run stands."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        try:
            for _ in range(steps):
                scheduler.step()
        except (ValueError, ArithmeticError, LookupError) as error:
            raise ValueError(
                f"`lr_scheduler`: {type(scheduler).__name__} cannot go on after {steps} steps: "
                f"{error}. Give it more steps."
            ) from error


def _position(state: Mapping[str, Any]) -> int | None:
    """The steps that a scheduler has taken, by its state."""
    if "last_epoch" in state:
        return int(state["last_epoch"])
    inner = state.get("_schedulers") or []
    return _position(inner[0]) if inner else None


def _groups(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = state["param_groups"]
    return groups


def _class_path(node: Any) -> Any:
    return node.get("class_path") if isinstance(node, Mapping) else None


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other) or (one != one and other != other)  # NaN


def _listed(found: list[Difference]) -> str:
    shown = "; ".join(map(str, found[:8]))
    return shown if len(found) <= 8 else f"{shown}; and {len(found) - 8} more"


def _short(value: Any) -> str:
    text = _NONE if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
