"""Grouping runs by experiment, in the order of their rules."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lit_credit.comparison.labels import (
    RULE,
    UNSET,
    above,
    differing_keys,
    find_key,
    flat,
    is_callback,
    key_texts,
    part_text,
    refining_keys,
    sort_key,
    value_at,
    value_text,
)
from lit_credit.headlines import Look
from lit_credit.runs.run_folder import Run, history_files

__all__ = ["Group", "grouped", "hidden_differences", "pooled_settings", "without_twins"]

_CALLBACKS = "callbacks"
_MOST = 3
"""Largest number of keys whose hidden differences are noted."""


@dataclass(frozen=True)
class Group:
    """Runs that form one row.

    Attributes:
        label: name of the row.
        runs: in the order of their seeds.
        config: flat configuration of the first run, without seeds and paths.
        shown: keys of the configuration that the label tells.
    """

    label: str
    runs: list[Run]
    config: Mapping[str, Any] = field(default_factory=dict)
    shown: tuple[str, ...] = ()


def grouped(
    runs: Sequence[Run], looks: Mapping[str, Look], by: Sequence[str] = ()
) -> dict[str, Group]:
    """Groups by label, in the order of the rules.

    Args:
        runs: runs of one or several experiments.
        looks: look of each rule, by the rule's name.
        by: keys of the configuration; runs with equal values form a group. Without keys, runs that
            differ only by seeds and paths do, and so do runs without a configuration.

    Raises:
        ValueError: if there is no such key.
    """

    def place(run: Run) -> float:
        return looks.get(run.rule, Look()).order

    found = _by_keys(runs, by) if by else _by_experiment(runs)
    found.sort(key=lambda group: (place(group.runs[0]), group.runs[0].rule) if not by else (0, ""))
    return {group.label: group for group in _told_apart(found)}


def _by_experiment(runs: Sequence[Run]) -> list[Group]:
    rules: dict[str, list[list[Run]]] = {}
    for group in _partition(runs, lambda run: run.experiment):
        rules.setdefault(group[0].rule, []).append(group)
    return [group for rule, groups in rules.items() for group in _of_rule(rule, groups)]


def _of_rule(rule: str, groups: Sequence[list[Run]]) -> list[Group]:
    configs = [flat(group[0].compared) for group in groups]
    keys = [key for key in refining_keys([c for c in configs if c]) if key != RULE]
    texts = key_texts(keys, differing_keys(configs))
    found = []
    for group, config in zip(groups, configs, strict=True):
        parts = [part_text(key, texts[key], config[key]) for key in keys if key in config]
        found.append(Group(" ".join([rule, *parts]), _sorted(group), config, tuple(keys)))
    return sorted(found, key=lambda group: [sort_key(group.config.get(key)) for key in keys])


def _by_keys(runs: Sequence[Run], by: Sequence[str]) -> list[Group]:
    configs = {id(run): flat(run.config) for run in runs}
    keys = [find_key(key, list(configs.values())) for key in by]
    texts = key_texts(keys)

    def values(run: Run) -> dict[str, Any]:
        return {key: value_at(configs[id(run)], key) for key in keys} if run.config else {}

    def part(run: Run) -> str:
        return json.dumps(values(run) or run.experiment, default=str)

    found = []
    for group in _partition(runs, part):
        shown = values(group[0])
        parts = [
            value_text(value) if key == RULE else f"{texts[key]}={value_text(value)}"
            for key, value in shown.items()
        ]
        label = " ".join(parts) or group[0].rule
        found.append(Group(label, _sorted(group), shown, tuple(keys)))
    return sorted(
        found, key=lambda g: (not g.config, [sort_key(value) for value in g.config.values()])
    )


def _partition(runs: Iterable[Run], of: Callable[[Run], str]) -> list[list[Run]]:
    parts: dict[str, list[Run]] = {}
    for run in runs:
        parts.setdefault(of(run), []).append(run)
    return list(parts.values())


def _sorted(group: Sequence[Run]) -> list[Run]:
    return sorted(group, key=lambda run: (run.seed is None, run.seed or 0))


def _told_apart(groups: Sequence[Group]) -> list[Group]:
    """The groups, equal labels with the parts of the path that differ."""
    twice = {group.label for group in groups if [g.label for g in groups].count(group.label) > 1}
    paths = {id(g): g.runs[0].folder.resolve().parts for g in groups if g.label in twice}
    found = []
    for group in groups:
        label = group.label
        if label in twice:
            others = [paths[id(g)] for g in groups if g.label == label]
            own = [part for part in paths[id(group)] if not all(part in path for path in others)]
            label = f"{label} ({'/'.join(own) or group.runs[0].folder})"
        # The name of a folder may hold bytes that are not text.
        label = label.encode("utf-8", "backslashreplace").decode()
        found.append(Group(label, group.runs, group.config, group.shown))
    return found


def without_twins(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """One run of each configuration and seed, the newest finished one, and notes on the others.

    Args:
        runs: runs with their histories. Runs without a seed have no twins.
    """
    kept, notes = [], []
    for twins in _partition(runs, lambda run: json.dumps([run.experiment, run.seeds])):
        if len(twins) == 1 or twins[0].seed is None:
            kept += twins
            continue
        *others, best = sorted(twins, key=lambda run: (not run.unfinished, _written_at(run)))
        kept.append(best)
        left = ", ".join(str(run.folder) for run in others)
        what = "newest unfinished" if best.unfinished else "newest finished"
        notes.append(
            f"twins: {best.rule}, seed {best.seed}: {best.folder} is shown, the {what} run of this "
            f"configuration; left out: {left}"
        )
    return kept, notes


def _written_at(run: Run) -> float:
    return max(path.stat().st_mtime for path in history_files(run.folder))


def hidden_differences(groups: Sequence[Group]) -> list[str]:
    """Notes on keys that differ between rules, and that no label tells."""
    shown = {key for group in groups for key in group.shown} | {RULE}
    known = [group for group in groups if group.config]
    configs = _comparable([group.config for group in known])
    hidden = [key for key in differing_keys(configs) if key not in shown]
    texts = key_texts(hidden, list(dict.fromkeys(key for config in configs for key in config)))
    notes = []
    for key in hidden[:_MOST]:
        values: dict[str, list[str]] = {}
        for group, config in zip(known, configs, strict=True):
            values.setdefault(_told(key, config), []).append(group.label)
        told = "; ".join(f"{value} ({', '.join(who[:3])})" for value, who in values.items())
        notes.append(f"also differs: {texts[key]}: {told}")
    if len(hidden) > _MOST:
        notes.append(f"also differ: {', '.join(hidden[_MOST : _MOST + 8])}")
    return notes


def _comparable(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The configurations without arguments that only some of their classes have."""
    known = [{*config, *(place for key in config for place in above(key))} for config in configs]
    shared = set.intersection(*known) if known else set()
    keys: dict[str, None] = {}
    for key in dict.fromkeys(key for config in configs for key in config):
        places = [*above(key), key]
        common = next((place for place in reversed(places) if place in shared), "")
        if common == key:
            keys[key] = None
        elif not common or common == _CALLBACKS:  # a whole part that some lack
            keys[places[places[0] == _CALLBACKS]] = None
        elif not all(isinstance(config.get(common), str) for config in configs):  # no class
            keys[common] = None
    return [
        {key: value_at(config, key) for key in keys if key in places}
        for config, places in zip(configs, known, strict=True)
    ]


def pooled_settings(groups: Sequence[Group]) -> list[str]:
    """Notes on settings that differ, seeds aside, between the runs of one row.

    Args:
        groups: groups of ``--by``, whose keys need not tell everything that differs.
    """
    where: dict[str, list[str]] = {}
    values: dict[str, dict[str, None]] = {}
    for group in groups:
        configs = [flat(run.compared) for run in group.runs if run.compared]
        for key in refining_keys(configs):
            where.setdefault(key, []).append(group.label)
            values.setdefault(key, {}).update(dict.fromkeys(_told(key, c) for c in configs))
    texts = key_texts(list(where)) | {RULE: "rule"}
    notes = [
        f"pooled: {texts[key]} has several values ({', '.join(list(values[key])[:_MOST])}"
        f"{', ..' if len(values[key]) > _MOST else ''}) in {', '.join(labels[:_MOST])}"
        f"{f' and {len(labels) - _MOST} more' if len(labels) > _MOST else ''}"
        for key, labels in list(where.items())[:_MOST]
    ]
    if len(where) > _MOST:
        notes.append(f"pooled too: {', '.join(list(where)[_MOST : _MOST + 8])}")
    return notes


def _told(key: str, config: Mapping[str, Any]) -> str:
    if is_callback(key):
        return "with" if key in config else "without"
    return value_text(config[key]) if key in config else UNSET
