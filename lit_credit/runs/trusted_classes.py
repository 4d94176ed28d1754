"""Checking the code that a checkpoint names, before any of it is imported."""

import re
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from inspect import isclass, isfunction
from typing import Any, get_type_hints

import yaml
from lightning.pytorch import Callback, LightningDataModule
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lit_credit.former_names import current_path
from lit_credit.utils.private_names import CLASS_PATH, INSTANTIATOR

__all__ = ["check_code", "imported"]

_PACKAGES = {"lit_credit", "torch", "torchvision", "torchmetrics", "lightning"}
"""Packages whose modules may be imported because a checkpoint names them."""
_KINDS = (nn.Module, Optimizer, LRScheduler, ReduceLROnPlateau, LightningDataModule, Callback)
_INSTANTIATORS = {
    None,
    "lightning.pytorch.cli.instantiate_module",
    "pytorch_lightning.cli.instantiate_module",
}
_OF_CLASSES = {"net", "task", "optimizer", "lr_scheduler"}
_OF_NAMES = {"units", "readout", "clip_per_unit", "shared_feedback"}
"""Arguments of rules whose dotted strings name classes, and those whose strings name submodules."""
_DOTTED = re.compile(r"^[^\W\d]\w*(?:\.[^\W\d]\w*)+$")
_LONGEST = 10_000


def check_code(
    arguments: Mapping[str, Any], rule: type[Any], source: Any, *, parsed: bool = True
) -> None:
    """Refuse arguments that name other code than the classes of a rule.

    ``_instantiator`` may be Lightning's own. ``_class_path`` must name a loaded class that is
    ``rule`` or derived from it. Every other class must be a module, a task, an optimizer, a
    scheduler, data or a callback, or a function that is annotated to return one. It must be loaded,
    or be part of lit_credit, torch, torchvision, torchmetrics or Lightning.

    Args:
        arguments: ``hyper_parameters`` of a checkpoint.
        rule: the class that is to be built from them.
        source: the file, for the error.
        parsed: also check plain strings, which name code if an argument takes a function.

    Raises:
        ValueError: naming the first entry that is refused. Nothing was imported or called.
    """
    instantiator = arguments.get(INSTANTIATOR)
    if not isinstance(instantiator, str | None) or instantiator not in _INSTANTIATORS:
        raise ValueError(_refusal(source, INSTANTIATOR, instantiator, "calls code"))
    path = arguments.get(CLASS_PATH)
    if path is not None:
        found = imported(path)
        if not isclass(found) or not issubclass(found, rule):
            raise ValueError(
                _refusal(source, CLASS_PATH, path, f"is not {rule.__name__} or derived from it")
            )
    for name, value in arguments.items():
        if name not in (INSTANTIATOR, CLASS_PATH, *_OF_NAMES):
            for at, text, is_class in _named(value, str(name), name in _OF_CLASSES, set()):
                _check_name(at, text, is_class, source, parsed)


def imported(path: Any) -> Any:
    """The object that a dotted path names among the loaded modules; None if there is none."""
    parts = current_path(path).split(".") if isinstance(path, str) else []
    for border in range(len(parts) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(parts[:border]))
        if found is not None:
            for name in parts[border:]:
                found = getattr(found, name, None)
            return found
    return None


def _named(value: Any, at: str, is_class: bool, seen: set[int]) -> Iterator[tuple[str, str, bool]]:
    """Every string of a tree that may name code: its place, the string, and whether a class."""
    if isinstance(value, str):
        yield at, value, is_class
        if len(value) <= _LONGEST and re.search(r"[{\[:\n]", value):  # the parser reads YAML there
            try:
                inner = yaml.safe_load(value)
            except (yaml.YAMLError, ValueError, RecursionError):
                return
            if isinstance(inner, Mapping | list):
                yield from _named(inner, at, is_class, seen)
        return
    if not isinstance(value, Mapping | list | tuple) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _named(item, f"{at}.{key}", key == "class_path", seen)
    else:
        for item in value:
            yield from _named(item, at, is_class, seen)


def _check_name(at: str, text: str, is_class: bool, source: Any, parsed: bool) -> None:
    if len(text) > _LONGEST:
        raise ValueError(_refusal(source, at, text[:40] + "...", "is too long for an argument"))
    if not _DOTTED.match(text):
        return
    package = text.partition(".")[0]
    loaded = package in sys.modules
    if is_class:
        found = imported(text)
        if found is None and package in _PACKAGES:
            found = _from_package(text)
        if found is None:
            raise ValueError(_refusal(source, at, text, "is not loaded"))
        if not _is_of_kind(found):
            raise ValueError(
                _refusal(source, at, text, "is not a module, a task, an optimizer or a scheduler")
            )
    elif parsed and not loaded and package not in _PACKAGES and _exists(package):
        raise ValueError(_refusal(source, at, text, "is not loaded"))


def _from_package(path: str) -> Any:
    """The object that a path names, after the import of the modules in the path."""
    parts = current_path(path).split(".")
    for border in range(1, len(parts)):
        try:
            import_module(".".join(parts[:border]))
        except ImportError:
            break
    return imported(path)


def _is_of_kind(found: Any) -> bool:
    if isfunction(found):
        try:
            found = get_type_hints(found).get("return")
        except (NameError, TypeError, AttributeError):
            return False
    return isclass(found) and issubclass(found, _KINDS)


def _exists(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ValueError, ImportError):
        return False


def _refusal(source: Any, at: str, value: Any, reason: str) -> str:
    return (
        f"{source} names {value!r} as `{at}`, which {reason}. Nothing was imported or run. If you "
        "trust the file, import the module that defines its classes first, or give "
        "`weights_only=False` to `load_from_checkpoint`."
    )
