"""Reading configurations that earlier versions wrote."""

from inspect import isfunction, signature
from typing import Any

from lightning.pytorch import Callback

from lit_credit.cli.class_rules import exported_classes
from lit_credit.former_names import with_current_paths
from lit_credit.runs.earlier_arguments import with_earlier_arguments
from lit_credit.runs.trusted_classes import imported

__all__ = ["of_today", "with_new_defaults", "without_old_arguments"]

_OLD = ("n_samples", "units", "loss")
"""Arguments that every diagnostic once had, whether it used them or not."""
_WRITTEN_OUT = {"barebones", "fast_dev_run", "num_nodes"}
"""Options of the Trainer that a written-out configuration has, and hardly any other."""


def of_today(config: Any) -> Any:
    """A configuration as this version means it: current paths and arguments.

    In a configuration that an earlier version wrote out, the data get the arguments that they did
    not have. A configuration that a person wrote has defaults there.

    Args:
        config: nested mappings and lists, as read from YAML.
    """
    new = without_old_arguments(with_current_paths(config))
    trainer = new.get("trainer") if isinstance(new, dict) else None
    if isinstance(trainer, dict) and trainer.keys() >= _WRITTEN_OUT and "data" in new:
        exported_classes()  # loads them
        new["data"] = with_earlier_arguments(new["data"])
    return new


def with_new_defaults(saved: Any, wanted: Any) -> Any:
    """Add to a saved configuration, at their defaults, the arguments that its classes got since.

    An argument that a class has got behaves at its default as the class did without it; those of
    data that do not are in :func:`of_today`.

    Args:
        saved: a configuration that an earlier version wrote out.
        wanted: a configuration of today. Only what it has at its default is added.
    """
    if isinstance(saved, list) and isinstance(wanted, list) and len(saved) == len(wanted):
        return [with_new_defaults(one, other) for one, other in zip(saved, wanted, strict=True)]
    if not isinstance(saved, dict) or not isinstance(wanted, dict):
        return saved
    new = {key: with_new_defaults(item, wanted.get(key)) for key, item in saved.items()}
    path = saved.get("class_path")
    kind = imported(path) if path == wanted.get("class_path") else None
    given, asked_for = new.get("init_args"), wanted.get("init_args")
    if kind is not None and isinstance(given, dict) and isinstance(asked_for, dict):
        defaults = {name: found.default for name, found in signature(kind).parameters.items()}
        added = {
            name: value
            for name, value in asked_for.items()
            if name not in given and name in defaults and defaults[name] == value
        }
        new["init_args"] = {**given, **added}
    return new


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
