"""Resuming a run with the values configured now, or with those of its checkpoint."""

import warnings
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_credit.rules.checkpoints.differences import Difference, differences, groups_of, saved_with
from lit_credit.utils.private_names import schedulers_within

__all__ = ["POLICIES", "reconcile"]

POLICIES = ("refuse", "configured", "checkpoint")


_SEEN = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")


def reconcile(
    module: Any, checkpoint: dict[str, Any], optimizer: Optimizer, scheduler: Any, now: Any
) -> dict[str, Any]:
    """Apply the rule's ``on_resume`` to a checkpoint, before the checkpoint is restored.

    Args:
        module: the rule; its ``on_resume`` is ``refuse``, ``configured`` or ``checkpoint``.
        checkpoint: the checkpoint that Lightning is about to restore; its states are replaced if
            the configured values are taken.
        optimizer: the configured optimizer.
        scheduler: the configured scheduler, or None.
        now: the configuration of the run.

    Returns:
        The configuration with which the run continues.

    Raises:
        ValueError: if a value differs and must not, or cannot, be taken.
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
        module.loaded_random_state = None
    return dict(now)


def _restorable(difference: Difference) -> bool:
    """Whether the state of the optimizer or the scheduler contains the value."""
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
    """Replace hyperparameters and schedule in the states; keep moments of the same optimizer."""
    changed = {difference.at.partition(".")[0] for difference in found}
    if not changed & {"optimizer", "lr_scheduler", "lr_interval"}:
        return
    state = checkpoint["optimizer_states"][0]
    schedulers = checkpoint.get("lr_schedulers") or []
    groups: list[dict[str, Any]] = optimizer.state_dict()["param_groups"]
    states = []
    if isinstance(scheduler, ReduceLROnPlateau):
        # It has no schedule to replay: keep what it has seen, and the learning rate.
        if schedulers and not any(d.at in ("optimizer", "optimizer.lr") for d in found):
            for group, old in zip(groups, groups_of(state), strict=True):
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
    for group, old in zip(groups, groups_of(state), strict=True):
        group["params"] = old["params"]
    checkpoint["optimizer_states"] = [{**state, "param_groups": groups}]
    checkpoint["lr_schedulers"] = states


def _replay(scheduler: Any, steps: int) -> None:
    """Step a new scheduler to the position of the run."""
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
    """The number of steps that a scheduler has taken, from its state."""
    if "last_epoch" in state:
        return int(state["last_epoch"])
    inner = schedulers_within(state)
    return _position(inner[0]) if inner else None


def _listed(found: list[Difference]) -> str:
    shown = "; ".join(map(str, found[:8]))
    return shown if len(found) <= 8 else f"{shown}; and {len(found) - 8} more"
