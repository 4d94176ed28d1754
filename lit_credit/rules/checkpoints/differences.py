"""Differences between the configuration of a run and that of its checkpoint."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lit_credit.rules.checkpoints.described import (
    PLACES,
    arguments_of,
    describe_groups,
    plain,
)
from lit_credit.runs.earlier_arguments import with_earlier_arguments
from lit_credit.runs.trusted_classes import imported
from lit_credit.utils.private_names import CLASS_PATH, INSTANTIATOR

__all__ = ["Difference", "differences", "groups_of", "saved_with"]

_ELSEWHERE = {"optimizer", "lr_scheduler", INSTANTIATOR, CLASS_PATH}
"""Arguments of a rule that are not compared themselves, but by the objects made from them."""


_NONE = "none"


_LONGEST = 60


class Difference(NamedTuple):
    """An argument, the value that a checkpoint was saved with, and the one configured now."""

    at: str
    saved: Any
    configured: Any

    def __str__(self) -> str:
        return f"{self.at} {_short(self.saved)} there, {_short(self.configured)} here"


def saved_with(checkpoint: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration in a checkpoint; up to version 0.2, reconstructed from its states.

    Data of an earlier version have the arguments that stand for what it did.

    Args:
        checkpoint: the checkpoint, as saved by Lightning.
        now: the configuration of the run that continues from it.
    """
    found = checkpoint.get("configuration")
    if isinstance(found, Mapping):
        data = {"data": with_earlier_arguments(found["data"])} if "data" in found else {}
        return {**found, **data}
    arguments = checkpoint.get("hyper_parameters") or {}
    states, schedulers = checkpoint["optimizer_states"], checkpoint.get("lr_schedulers") or []
    if len(states) != 1:
        return {}
    moved = {"momentum", "betas"} if any("base_momentum" in g for g in groups_of(states[0])) else ()
    groups = [
        {name: value for name, value in group.items() if name not in moved}
        for group in describe_groups(groups_of(states[0]))
    ]
    scheduler = None
    if schedulers:
        known = now["lr_scheduler"] or {}
        kind = imported(known.get("class_path"))
        names = inspect.signature(kind).parameters if isinstance(kind, type) else ()
        state = {k: v for k, v in arguments_of(schedulers[0]).items() if k in names}
        added = (known.get("init_args") or {}).get("groups") or []
        if len(added) == len(groups):  # what OneCycleLR and CyclicLR keep in the groups
            raw = groups_of(states[0])
            state["groups"] = [
                {name: old[name] for name in new if name in old and name not in moved}
                for new, old in zip(added, raw, strict=True)
            ]
            for group, new in zip(groups, added, strict=True):
                if "initial_lr" in new:  # the scheduler overwrote the optimizer's own rate
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
    """The differences of two configurations and of the arguments of their rules.

    Only entries that both have are compared: which entries are written depends on the version and
    on how a run is started.
    """
    found: list[Difference] = []
    for name in ("optimizer", "lr_scheduler", "data", "trainer", "seed_everything"):
        if name in saved and name in now:
            found += _differences(saved[name], now[name], name)
    for name in arguments:
        if name in saved_arguments and name not in _ELSEWHERE:
            found += _differences(plain(saved_arguments[name]), plain(arguments[name]), name)
    return list({str(difference): difference for difference in found}.values())


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


def groups_of(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parameter groups in an optimizer's state."""
    groups: list[dict[str, Any]] = state["param_groups"]
    return groups


def _class_path(node: Any) -> Any:
    return node.get("class_path") if isinstance(node, Mapping) else None


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other) or (one != one and other != other)  # NaN


def _short(value: Any) -> str:
    text = _NONE if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
