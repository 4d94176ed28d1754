"""Finding the baseline that a person names."""

from collections.abc import Mapping

from lit_credit.comparison.groups import Group

__all__ = ["baseline_label"]


def baseline_label(wanted: str, groups: Mapping[str, Group]) -> str:
    """The label of the group that a person means by a label or by a rule's name.

    A number may be written in another form, such as ``lr=1e-3`` for ``lr=0.001``.

    Raises:
        ValueError: if there is no such group, or there are several.
    """
    if wanted in groups:
        return wanted
    found = [
        label for label, group in groups.items() if {run.rule for run in group.runs} == {wanted}
    ] or [label for label in groups if _parts(label) == _parts(wanted)]
    if len(found) == 1:
        return found[0]
    labels = ", ".join(repr(label) for label in (found or groups))
    reason = f"{len(found)} groups are of this rule" if found else "no group has this label"
    raise ValueError(f"--baseline: {wanted!r}: {reason}. Give one of: {labels:.400}.")


def _parts(label: str) -> list[str | float]:
    """The words of a label, with numbers as numbers."""
    return [_number(word) for part in label.split() for word in part.partition("=")]


def _number(word: str) -> str | float:
    try:
        return float(word)
    except ValueError:
        return word
