"""States of diagnostics in checkpoints whose version named their arguments otherwise."""

import ast
from collections.abc import Collection, Mapping
from typing import Any

__all__ = ["rename_older_state"]


def rename_older_state(states: dict[str, Any], key: str, others: Collection[str]) -> None:
    """Have a state stand below the key of today, if the checkpoint has it below an older one.

    The key of a diagnostic names its arguments. Versions differ in their order, and in which there
    are; a state belongs to a diagnostic if all arguments that both keys name have one value.

    Args:
        states: of a checkpoint, by key; changed in place.
        key: the diagnostic's, of today.
        others: the keys of all diagnostics, whose states are theirs.

    Example:
        >>> states = {"Norms{'n_samples': 8, 'every': 1, 'sibling': 0}": "rows"}
        >>> rename_older_state(states, "Norms{'every': 1, 'sibling': 0}", [])
        >>> states
        {"Norms{'every': 1, 'sibling': 0}": 'rows'}
    """
    own = _arguments(key)
    if key in states or own is None:
        return
    name = key.partition("{")[0]
    older = [
        other
        for other in states
        if other not in others and other.partition("{")[0] == name and _agree(own, other)
    ]
    if len(older) == 1:
        states[key] = states.pop(older[0])


def _agree(own: Mapping[str, str], other: str) -> bool:
    found = _arguments(other)
    return found is not None and all(own[name] == found[name] for name in own.keys() & found.keys())


def _arguments(key: str) -> dict[str, str] | None:
    """The arguments in a key, as text; None of a key that cannot be read."""
    try:
        found = ast.parse(key[key.index("{") :], mode="eval").body
    except (ValueError, SyntaxError):
        return None
    if not isinstance(found, ast.Dict):
        return None
    pairs = zip(found.keys, found.values, strict=True)
    return {ast.unparse(name): ast.unparse(value) for name, value in pairs if name is not None}
