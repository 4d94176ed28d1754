"""Completing a configuration that an earlier version wrote."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from lit_credit.protocols import DataModuleProtocol, asked
from lit_credit.runs.trusted_classes import imported

__all__ = ["with_earlier_arguments"]


def with_earlier_arguments(entry: Any) -> Any:
    """Add the arguments that a class did not have when an entry was written.

    Args:
        entry: a mapping with ``class_path`` and all ``init_args`` of its time. An entry whose class
            is not loaded, or says nothing about earlier versions, is returned as it is.

    Example:
        >>> import lit_credit.datamodules
        >>> entry = {"class_path": "lit_credit.datamodules.Digits", "init_args": {"seed": 1}}
        >>> with_earlier_arguments(entry)["init_args"]
        {'seed': 1, 'val_split': 0.0, 'split_seed': 0}
    """
    kind = imported(entry.get("class_path")) if isinstance(entry, Mapping) else None
    earlier: Mapping[str, Any] = asked(kind, DataModuleProtocol.earlier_arguments, {})
    if kind is None or not earlier:
        return entry
    given = entry.get("init_args") or {}
    names = [name for name in signature(kind).parameters if name in earlier and name not in given]
    return {**entry, "init_args": {**given, **{name: earlier[name] for name in names}}}
