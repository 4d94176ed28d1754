"""Finding the baseline that a person names."""

from collections.abc import Mapping

from lit_credit.comparison.groups import Group

__all__ = ["baseline_label"]


def baseline_label(wanted: str, groups: Mapping[str, Group]) -> str:
    """The label of the group that a person means by a label or by a rule's name.

    Raises:
        ValueError: if there is no such group, or there are several.
    """
    if wanted in groups:
        return wanted
    found = [
        label for label, group in groups.items() if {run.rule for run in group.runs} == {wanted}
    ]
    if len(found) == 1:
        return found[0]
    labels = ", ".join(repr(label) for label in (found or groups))
    reason = f"{len(found)} groups are of this rule" if found else "no group has this label"
    raise ValueError(f"--baseline: {wanted!r}: {reason}. Give one of: {labels:.400}.")
