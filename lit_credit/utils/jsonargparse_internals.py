"""The one place with private names of jsonargparse: what a class that YAML names means.

jsonargparse has no public hook for this. What is changed here holds within a parser that has the
attribute ``own_class_rules``; any other parser of the same process works as before.
"""

from collections.abc import Callable
from contextvars import ContextVar
from importlib import import_module
from typing import Any, Protocol

from jsonargparse import Namespace

__all__ = ["ClassRules", "install", "without_class_defaults"]

_typehints: Any = import_module("jsonargparse._typehints")
_WITHOUT: ContextVar[bool] = ContextVar("without_class_defaults", default=False)
_Hook = tuple[str, Callable[..., Any]]


class ClassRules(Protocol):
    """What is asked about the classes and functions that a configuration names."""

    def path_of(self, base: Any, name: str) -> str | None:
        """The import path of a bare name, or None if jsonargparse is to find it."""

    def check_maker(self, returned: Any, found: Any, path: str) -> type | None:
        """Refuse a ``class_path`` that a callable argument must not have.

        Returns the class in whose place a function stands that makes one; None for any other.
        """

    def check_function(self, hint: Any, found: Any, path: str) -> None:
        """Refuse an import path that cannot be the value of a callable argument."""

    def check_untyped(self, found: Any, path: str) -> None:
        """Refuse a ``class_path`` that an argument without a type must not have."""

    def note_change(self, old: str, new: str, kept: list[str], dropped: list[str]) -> None:
        """Take note that a class replaces one of an earlier source, and of that one's arguments."""


def without_class_defaults(get_defaults: Callable[[], Namespace]) -> Namespace:
    """A parser's defaults, without the arguments of default classes.

    jsonargparse fills them in when all sources are read, for the class that was named last.
    """
    token = _WITHOUT.set(True)
    try:
        defaults = get_defaults()
    finally:
        _WITHOUT.reset(token)
    for key, value in list(defaults.items()):
        if isinstance(value, dict) and _typehints.is_subclass_spec(value):
            defaults[key] = _typehints.subclass_spec_as_namespace(value)
    return defaults


def install(rules: ClassRules) -> None:
    """Have parsers with ``own_class_rules`` follow the rules."""
    for hook in (_names, _changes, _values, _makers, _untyped):
        name, replacement = hook(rules)
        setattr(_typehints, name, replacement)
    add_sub_defaults = _typehints.ActionTypeHint.add_sub_defaults

    def add_unless_left_out(parser: Any, cfg: Any) -> None:
        if not _WITHOUT.get():
            add_sub_defaults(parser, cfg)

    _typehints.ActionTypeHint.add_sub_defaults = staticmethod(add_unless_left_out)


def _ours() -> bool:
    return getattr(_typehints.parent_parser.get(), "own_class_rules", False)


def _names(rules: ClassRules) -> _Hook:
    original = _typehints.resolve_class_path_by_name

    def resolve(cls: Any, name: str) -> str:
        own = rules.path_of(cls, name) if "." not in name and _ours() else None
        return own or str(original(cls, name))

    return original.__name__, resolve


def _changes(rules: ClassRules) -> _Hook:
    original = _typehints.discard_init_args_on_class_path_change

    def discard(parser: Any, old: Any, new: Any) -> None:
        if not _ours() or not old or not old.get("init_args") or _same_class(old, new):
            original(parser, old, new)
        elif _typehints.sub_defaults.get():
            # While defaults are filled in, the arguments of another class are its defaults.
            for name in _arguments(old):
                old["init_args"].pop(name)
        else:
            before = _arguments(old)
            original(parser, old, new)
            paths = old["class_path"], new["class_path"]
            was, becomes = map(_defaults, paths)
            after = _arguments(old)
            # Of values that are the old class's own defaults, only those that would change the new
            # class are worth a word.
            own = {name for name, value in before.items() if was.get(name, before) == value}
            kept = [n for n in after if n in own and becomes.get(n, before) != after[n]]
            dropped = [name for name in before if name not in after and name not in own]
            rules.note_change(*paths, kept, dropped)

    return original.__name__, discard


def _same_class(old: Any, new: Any) -> bool:
    paths = old["class_path"], new["class_path"]
    if paths[0] is None or paths[0] == paths[1]:
        return True
    one, other = map(_typehints.import_object, paths)
    return one is other


def _arguments(spec: Any) -> dict[str, Any]:
    given = spec.get("init_args") or {}
    return dict(vars(given) if isinstance(given, Namespace) else given)


def _defaults(path: str) -> dict[str, Any]:
    return dict(vars(_typehints.ActionTypeHint.get_class_parser(path).get_defaults()))


def _values(rules: ClassRules) -> _Hook:
    original = _typehints.adapt_typehints

    def adapt(val: Any, typehint: Any, *args: Any, **kwargs: Any) -> Any:
        if not _ours() or kwargs.get("serialize") or kwargs.get("instantiate_classes"):
            return original(val, typehint, *args, **kwargs)
        if isinstance(val, list) and not kwargs.get("append"):
            # A list replaces the earlier one. jsonargparse would fill each item up from the item
            # that stood at its place, of whatever class, if both lists have the same length.
            kwargs["prev_val"] = None
        origin = _typehints.get_typehint_origin(typehint) or typehint
        if (
            isinstance(val, str)
            and "." in val
            and val != kwargs.get("default")
            and origin in _typehints.callable_origin_types
        ):
            found = _found(val)
            if callable(found) and not isinstance(found, type):
                rules.check_function(typehint, found, val)
        return original(val, typehint, *args, **kwargs)

    return original.__name__, adapt


def _found(path: str) -> Any:
    """What stands at an import path, or None."""
    try:
        return _typehints.import_object(path)
    except Exception:  # a module may raise anything; jsonargparse says what is wrong
        return None


def _makers(rules: ClassRules) -> _Hook:
    original = _typehints.adapt_partial_callable_class

    def adapt(callable_type: Any, spec: Any) -> Any:
        if not _ours():
            return original(callable_type, spec)
        returned = _typehints.get_callable_return_type(callable_type)
        path = _typehints.resolve_class_path_by_name(returned, spec["class_path"])
        place = rules.check_maker(returned, _typehints.import_object(path), path)
        if place is None:
            return original(callable_type, spec)
        # A function that makes an optimizer is called like the optimizer's class: with the
        # parameters, and the `init_args` as they are given here.
        class_path = _typehints.get_import_path(place)
        stand_in: Any = _typehints.subclass_spec_as_namespace(class_path)
        return spec, *original(callable_type, stand_in)[1:]

    return original.__name__, adapt


def _untyped(rules: ClassRules) -> _Hook:
    original = _typehints.adapt_classes_any

    def adapt(val: Any, *args: Any, **kwargs: Any) -> Any:
        if _typehints.is_subclass_spec(val) and _ours() and isinstance(val["class_path"], str):
            found = _found(val["class_path"])
            if found is not None:
                rules.check_untyped(found, val["class_path"])
        return original(val, *args, **kwargs)

    return original.__name__, adapt
