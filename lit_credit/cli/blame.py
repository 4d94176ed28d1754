"""Finding the part of a configuration whose class, instance or function raised an error."""

import traceback
from argparse import Namespace
from collections.abc import Iterator, Mapping
from importlib import import_module
from inspect import unwrap
from types import FrameType
from typing import Any, NamedTuple

from lightning.pytorch.cli import LightningCLI

__all__ = ["blamed_part"]


class _Part(NamedTuple):
    path: str
    """``model.init_args.net``."""
    made_by: Any
    """The class, or the function, that ``class_path`` names."""


def blamed_part(error: BaseException, cli: LightningCLI) -> str:
    """The innermost part of the configuration that an error passed through.

    Args:
        error: raised while the parts were built or run.
        cli: the CLI that has parsed the configuration.

    Returns:
        Path, class and method, as ``"`model.init_args.net` (MLP.forward)"``; empty if the error
        passed through no part.
    """
    parts = list(_parts(cli))
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    # A message of lit_credit names the fault itself; the method that raised it adds nothing.
    in_our_words = bool(frames) and _package(frames[-1]) == "lit_credit"
    for frame in reversed(frames):
        if frame.f_code.co_name == "__getattr__":  # the fault is the caller's
            continue
        paths = [part.path for part in parts if _is_at_work(part.made_by, frame)]
        if paths:
            own = _paths_of(frame.f_locals.get("self"), cli)
            return f"{_either(own or paths)} ({_shown(frame, in_our_words)})"
    names = [str(frame.f_globals.get("__name__", "")) for frame in frames]
    if any(name.startswith("torch.utils.data") for name in names):  # a data set, a collate function
        return _either([part.path for part in parts if part.path == "data"])
    # A constructor that refuses an argument has no frame: only the error's text names its class.
    text = str(error)
    paths = [part.path for part in parts if f"{_name(part.made_by)}.__init__()" in text]
    paths = paths or [part.path for part in parts if text.startswith(f"{_name(part.made_by)}() ")]
    return _either(paths) if paths else ""


def _is_at_work(made_by: Any, frame: FrameType) -> bool:
    if isinstance(made_by, type):
        return type(frame.f_locals.get("self")) is made_by
    return getattr(unwrap(made_by), "__code__", None) is frame.f_code


def _shown(frame: FrameType, in_our_words: bool) -> str:
    if "self" not in frame.f_locals:
        return frame.f_code.co_name
    name, method = type(frame.f_locals["self"]).__name__, frame.f_code.co_name
    return name if in_our_words or method.startswith("_") else f"{name}.{method}"


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _name(made_by: Any) -> str:
    return getattr(made_by, "__name__", "")


def _either(paths: list[str]) -> str:
    return " or ".join(f"`{path}`" for path in paths)


def _parts(cli: LightningCLI) -> Iterator[_Part]:
    """All classes and functions of the configuration, by their paths."""
    for path, value in _walk(_section(cli, "config")):
        names = vars(value) if isinstance(value, Namespace) else value
        if isinstance(names, Mapping) and isinstance(names.get("class_path"), str):
            module, _, name = names["class_path"].rpartition(".")
            try:
                yield _Part(path, getattr(import_module(module), name))
            except (ImportError, AttributeError, ValueError):  # a method, a class within a class
                continue


def _paths_of(instance: Any, cli: LightningCLI) -> list[str]:
    """The paths of an instance that the CLI built; they tell two instances of a class apart."""
    made = _walk(_section(cli, "config_init"))
    return [path for path, value in made if value is instance and value is not None]


def _section(cli: LightningCLI, attribute: str) -> Any:
    """The subcommand's configuration as parsed (``config``) or built (``config_init``) so far."""
    config = getattr(cli, attribute, {})
    return config.get(config.get("subcommand"), {})


def _walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """A value and all values in it, with their paths."""
    yield path, value
    if isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _walk(item, f"{path}[{i}]")
    elif isinstance(value, Namespace | dict):
        items = vars(value) if isinstance(value, Namespace) else value
        for name, item in items.items():
            yield from _walk(item, f"{path}.{name}" if path else str(name))
