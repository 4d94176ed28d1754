"""Finding states of diagnostics in checkpoints of versions with other arguments."""

import ast
from collections.abc import Collection, Mapping
from typing import Any

__all__ = ["rename_older_state"]


def rename_older_state(states: dict[str, Any], key: str, others: Collection[str]) -> None:
    """Move a state to the current key if the checkpoint has it below an older key.

    The key of a diagnostic names its arguments. Versions differ in the arguments and in their
    order. A state belongs to a diagnostic if all arguments that both keys name have equal values.

    Args:
        states: the states of a checkpoint, by key; changed in place.
        key: the current key of the diagnostic.
        others: the keys of all diagnostics; states below these keys stay there.

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
    """The arguments in a key, as text; None if the key cannot be read."""
    try:
        found = ast.parse(key[key.index("{") :], mode="eval").body
    except (ValueError, SyntaxError):
        return None
    if not isinstance(found, ast.Dict):
        return None
    pairs = zip(found.keys, found.values, strict=True)
    return {ast.unparse(name): ast.unparse(value) for name, value in pairs if name is not None}
