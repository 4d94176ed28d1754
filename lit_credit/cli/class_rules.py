"""Checking and resolving the classes and functions that a configuration names."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from importlib import import_module
from pkgutil import iter_modules
from types import SimpleNamespace
from typing import Any, get_args, get_origin, get_type_hints

from lit_credit import studies

__all__ = ["OwnClassRules", "exported_classes", "replaced_classes"]

_PACKAGES = (
    *("rules", "models", "tasks", "datamodules", "callbacks", "feedback", "trainer.loggers"),
    "optimizers",
    *(f"studies.{study.name}" for study in iter_modules(studies.__path__)),
)
_LINES: ContextVar[dict[str, None] | None] = ContextVar("lines", default=None)


@contextmanager
def replaced_classes(say: Callable[[str], None]) -> Iterator[None]:
    """Report the arguments of replaced classes when the outermost ``with`` ends.

    Args:
        say: called with each line, unless the ``with`` ends by an error.
    """
    if _LINES.get() is not None:
        yield
        return
    lines: dict[str, None] = {}
    token = _LINES.set(lines)
    try:
        yield
    except SystemExit as stop:  # as after `--print_config`
        if stop.code:
            lines.clear()
        raise
    except BaseException:
        lines.clear()
        raise
    finally:
        _LINES.reset(token)
        for line in lines:
            say(line)


@cache
def exported_classes() -> dict[str, type]:
    """The classes that lit_credit exports, by their import paths."""
    modules = [import_module(f"lit_credit.{package}") for package in _PACKAGES]
    return {
        f"{module.__name__}.{name}": found
        for module in modules
        for name in module.__all__
        if inspect.isclass(found := getattr(module, name))
    }


class OwnClassRules:
    """How ``lit-credit`` resolves and checks the names of classes and functions."""

    def path_of(self, base: Any, name: str) -> str | None:
        """The import path of the exported class of that name; None if there is none."""
        bases = _classes(base)
        for path, found in exported_classes().items():
            if path.endswith(f".{name}") and issubclass(found, bases):
                return path
        return None

    def check_maker(self, returned: Any, found: Any, path: str) -> type | None:
        """The base class of what an annotated function makes; None for a class or callable.

        Raises:
            ValueError: if ``found`` is neither a class nor a function of the kind ``returned``.
        """
        bases = _classes(returned)
        if bases and not inspect.isclass(found) and _is_kind(_annotation(found), bases):
            return bases[0]
        if inspect.isclass(found):
            fits = not bases or issubclass(found, bases)
        else:
            fits = _is_maker(_annotation(found), bases)
        if not fits:
            raise ValueError(_mismatch(path, bases))
        _refuse_standard_library(found, path)
        return None

    def check_function(self, hint: Any, found: Any, path: str) -> None:
        """Check that a function takes the arguments of the hint and returns its result type.

        Raises:
            ValueError: if it does not.
        """
        given, returned = get_args(hint) or (..., Any)
        bases = _classes(returned)
        if bases and not _is_kind(_annotation(found), bases):
            raise ValueError(_mismatch(path, bases))
        _refuse_standard_library(found, path)
        if given is ...:
            return
        try:
            inspect.signature(found).bind(*given)
        except TypeError as error:
            names = ", ".join(getattr(kind, "__name__", str(kind)) for kind in given)
            raise ValueError(f"`{path}` cannot be called with ({names}): {error}.") from error

    def check_untyped(self, found: Any, path: str) -> None:
        """Check that ``found`` is a class, or a function with an annotated result.

        Raises:
            ValueError: if it is neither.
        """
        if not inspect.isclass(found) and _annotation(found) is None:
            raise ValueError(
                f"`{path}` is neither a class nor a function that is annotated with its result."
            )
        _refuse_standard_library(found, path)

    def note_change(self, old: str, new: str, kept: list[str], dropped: list[str]) -> None:
        """Record which arguments of class ``old`` its replacement ``new`` keeps and drops."""
        lines = _LINES.get()
        if lines is None:
            return
        was, becomes = old.rpartition(".")[2], new.rpartition(".")[2]
        if dropped:
            lines[f"{becomes} replaces {was} and does not take its {_listed(dropped)}."] = None
        if kept:
            lines[f"{becomes} replaces {was} and keeps its {_listed(kept)}."] = None


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _classes(hint: Any) -> tuple[type, ...]:
    """The classes in a type hint, without ``Any``, builtins and callables."""
    if hint is Any or (inspect.isclass(hint) and get_origin(hint) is None):
        plain = hint is Any or hint.__module__ == "builtins"  # such as float: nothing to check
        return () if plain else (hint,)
    if get_origin(hint) is Callable or isinstance(get_origin(hint), type):
        return ()
    parts = hint if isinstance(hint, tuple) else get_args(hint)
    return tuple(found for part in parts for found in _classes(part))


def _annotation(function: Any) -> Any:
    """What a function is annotated to return, or None."""
    while isinstance(function, partial):
        function = function.func
    function = inspect.unwrap(function)
    own = getattr(function, "__annotations__", {}).get("return")
    try:
        # Resolve the result alone: other annotations may name imports for type checkers only.
        names = getattr(function, "__globals__", None)
        hints = get_type_hints(SimpleNamespace(__annotations__={"return": own}), names)
    except Exception:
        return None
    return None if own is None else hints["return"]


def _is_kind(annotation: Any, bases: tuple[type, ...]) -> bool:
    found = _classes(annotation)
    return bool(found) and all(issubclass(one, bases) for one in found)


def _is_maker(annotation: Any, bases: tuple[type, ...]) -> bool:
    """Whether the annotation is a callable that returns one of the bases."""
    if _is_callable_type(annotation):
        made = (get_args(annotation) or (Any,))[-1]
        return not bases or _is_kind(made, bases)
    own = [kind for one in _classes(annotation) for kind in one.__mro__]
    return not bases and any("__call__" in vars(kind) for kind in own)


def _is_callable_type(hint: Any) -> bool:
    return Callable in (hint, get_origin(hint)) or str(hint) == "typing.Callable"


def _mismatch(path: str, bases: tuple[type, ...]) -> str:
    if not bases:
        return f"`{path}` is not a function that is annotated to return a callable."
    names = " or ".join(base.__name__ for base in bases)
    return (
        f"`{path}` is neither a subclass of {names} nor a function that is annotated to return one."
    )


def _refuse_standard_library(found: Any, path: str) -> None:
    """Refuse the standard library: little of it suits an experiment, much acts on the machine."""
    while isinstance(found, partial):
        found = found.func
    named = inspect.isclass(found) or inspect.isroutine(found)
    home = str(getattr(found, "__module__", None) or "builtins") if named else ""
    if home.partition(".")[0] in sys.stdlib_module_names - {"math", "cmath"}:
        raise ValueError(
            f"`{path}` belongs to Python's standard library. Name a class or a function of a "
            "machine learning library, or of your own."
        )
