"""Reading configurations that earlier versions wrote."""

from inspect import isfunction, signature
from typing import Any

from lightning.pytorch import Callback

from lit_credit.cli.class_rules import exported_classes

__all__ = ["without_old_arguments"]

_OLD = ("n_samples", "units", "loss")
"""Arguments that every diagnostic once had, whether it used them or not."""


def without_old_arguments(config: Any) -> Any:
    """Remove empty arguments that our diagnostics no longer have.

    An argument with a value stays, and the parser refuses it.

    Args:
        config: nested mappings and lists, as read from a ``config.yaml``.

    Example:
        >>> path = "lit_credit.callbacks.WeightAlignment"
        >>> without_old_arguments({"class_path": path, "init_args": {"loss": None}})["init_args"]
        {}
    """
    if isinstance(config, list):
        return [without_old_arguments(item) for item in config]
    if not isinstance(config, dict):
        return config
    new = {key: without_old_arguments(item) for key, item in config.items()}
    given, path = new.get("init_args"), new.get("class_path")
    if isinstance(given, dict) and str(path).startswith("lit_credit."):
        empty = {name for name in _OLD if name in given and given[name] is None}
        kind = exported_classes().get(str(path))
        if empty and kind is not None and issubclass(kind, Callback):
            gone = empty - _arguments(kind)
            new["init_args"] = {name: item for name, item in given.items() if name not in gone}
    return new


def _arguments(kind: type) -> set[str]:
    inits = [vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)]
    return {name for init in inits if isfunction(init) for name in signature(init).parameters}
