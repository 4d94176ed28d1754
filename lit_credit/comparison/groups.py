"""Grouping runs by experiment, in the order of their rules."""

from collections.abc import Mapping, Sequence

from lit_credit.headlines import Look
from lit_credit.runs.run_folder import Run

__all__ = ["grouped"]


def grouped(runs: Sequence[Run], looks: Mapping[str, Look]) -> dict[str, list[Run]]:
    """Runs by label, in the order of the rules, each group in the order of its seeds.

    Args:
        runs: runs of one or several experiments; runs that differ only by seeds form a group.
        looks: look of each rule, by the rule's name.

    Raises:
        ValueError: if two runs have the same configuration and the same seed.
    """
    experiments: dict[str, list[Run]] = {}
    for run in runs:
        group = experiments.setdefault(run.experiment, [])
        twin = next((other for other in group if other.seeds == run.seeds), None)
        if twin is not None and run.seed is not None:
            raise ValueError(
                f"RUN: two runs of {run.rule} with seed {run.seed} and one configuration: "
                f"{str(twin.folder)!r} and {str(run.folder)!r}. Leave one of them out."
            )
        group.append(run)
    labelled: dict[str, list[Run]] = {}
    for rule in sorted({run.rule for run in runs}, key=lambda rule: (looks[rule].order, rule)):
        groups = [group for group in experiments.values() if group[0].rule == rule]
        for label, group in zip(_labels(rule, groups), groups, strict=True):
            labelled[label] = sorted(group, key=lambda run: (run.seed is None, run.seed or 0))
    return labelled


def _labels(rule: str, groups: Sequence[Sequence[Run]]) -> list[str]:
    """The rule's name; for several experiments, with the parts of the path that differ."""
    if len(groups) == 1:
        return [rule]
    paths = [[run.folder.resolve().parts for run in group] for group in groups]
    shared = set.intersection(*(set(parts) for group in paths for parts in group))
    names = []
    for runs, group in zip(groups, paths, strict=True):
        seeds = {f"seed_{run.seed}" for run in runs}
        everywhere = set.intersection(*map(set, group)) - shared - seeds
        names.append("/".join(part for part in group[0] if part in everywhere))
    if len(set(names)) < len(names) or not all(names):
        firsts = [group[0] for group in paths]
        names = ["/".join(part for part in parts if part not in shared) for parts in firsts]
    if len(set(names)) < len(names):
        names = [str(group[0].folder) for group in groups]
    # The name of a folder may hold bytes that are not text.
    names = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    return [f"{rule} ({name})" for name in names]
