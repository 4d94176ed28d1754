"""What a plan has read, as text that is handed to a run: plain data, which names no code to run."""

import json
from typing import Any

from jsonargparse import Namespace

from lit_credit.cli.configuration import ReadWords

__all__ = ["as_text", "from_text"]


def as_text(read: ReadWords) -> str | None:
    """What was read, without the configuration and the paths of the ``--config`` files.

    Returns:
        JSON; None if a value is not plain data, such as a function. The run then reads the words.
    """
    namespace = read.namespace.clone(with_meta=False)
    namespace.fit.config = None
    try:
        return json.dumps([_encoded(namespace), read.lines])
    except TypeError:
        return None


def from_text(text: str) -> ReadWords:
    """What was read, with an empty configuration."""
    namespace, lines = json.loads(text)
    return ReadWords(_decoded(namespace), {}, lines)


def _encoded(value: Any) -> Any:
    """A value of JSON: all but numbers and texts with the name of their type."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple):
        return {type(value).__name__: [_encoded(item) for item in value]}
    pairs = vars(value) if type(value) is Namespace else value
    if type(pairs) is not dict:
        raise TypeError(f"{type(value).__name__} is not plain data")
    kind = "namespace" if type(value) is Namespace else "dict"
    return {kind: [[_encoded(key), _encoded(item)] for key, item in pairs.items()]}


def _decoded(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, items),) = value.items()
    if kind in ("list", "tuple"):
        found = [_decoded(item) for item in items]
        return tuple(found) if kind == "tuple" else found
    pairs = {_decoded(key): _decoded(item) for key, item in items}
    if kind == "dict":
        return pairs
    namespace = Namespace()  # type: ignore[no-untyped-call]
    vars(namespace).update(pairs)
    return namespace
