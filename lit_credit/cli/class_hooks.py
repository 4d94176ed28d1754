"""Making jsonargparse resolve the classes that YAML names by rules of our own.

jsonargparse has no public hook for this. The changes affect only parsers that have the attribute
``own_class_rules``; every other parser of the process works as before.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol

from jsonargparse import Namespace

from lit_credit.cli.own_modules import why_not_imported
from lit_credit.utils.private_names import (
    class_parser,
    class_path_of,
    class_spec,
    fills_defaults_in,
    import_path_of,
    imported_by_jsonargparse,
    is_class_spec,
    is_hint_of_callable,
    parser_at_work,
    replace_parsing_step,
    result_of_callable,
    with_nested_word,
)

__all__ = ["ClassRules", "install", "without_class_defaults"]

_WITHOUT: ContextVar[bool] = ContextVar("without_class_defaults", default=False)
_Step = Callable[..., Any]


class ClassRules(Protocol):
    """Questions about the classes and functions that a configuration names."""

    def path_of(self, base: Any, name: str) -> str | None:
        """The import path of a bare name; None leaves the search to jsonargparse."""

    def check_maker(self, returned: Any, found: Any, path: str) -> type | None:
        """Refuse a ``class_path`` that a callable argument must not have.

        Returns the base class of what an annotated function makes; None for a class.
        """

    def check_function(self, hint: Any, found: Any, path: str) -> None:
        """Refuse an import path that cannot be the value of a callable argument."""

    def check_untyped(self, found: Any, path: str) -> None:
        """Refuse a ``class_path`` that an argument without a type must not have."""

    def note_change(self, old: str, new: str, kept: list[str], dropped: list[str]) -> None:
        """Record that class ``new`` replaces class ``old``, and what becomes of old arguments."""


def without_class_defaults(get_defaults: Callable[[], Namespace]) -> Namespace:
    """A parser's defaults, without the arguments of default classes.

    jsonargparse fills these arguments in after it has read all sources, for the last class named.
    """
    token = _WITHOUT.set(True)
    try:
        defaults = get_defaults()
    finally:
        _WITHOUT.reset(token)
    for key, value in list(defaults.items()):
        if isinstance(value, dict) and is_class_spec(value):
            defaults[key] = class_spec(value)
    return defaults


def install(rules: ClassRules) -> None:
    """Make parsers with ``own_class_rules`` follow the rules."""
    replace_parsing_step("find", lambda original: _find(rules, original))
    replace_parsing_step("replace", lambda original: _replace(rules, original))
    replace_parsing_step("read", lambda original: _read(rules, original))
    replace_parsing_step("class", _class)
    replace_parsing_step("make", lambda original: _make(rules, original))
    replace_parsing_step("untyped", lambda original: _untyped(rules, original))
    replace_parsing_step("import", _import)
    replace_parsing_step("defaults", _fill_in)


def _is_ours() -> bool:
    return getattr(parser_at_work(), "own_class_rules", False)


def _find(rules: ClassRules, original: _Step) -> _Step:
    def find(base: Any, name: str) -> str:
        own = rules.path_of(base, name) if "." not in name and _is_ours() else None
        return own or str(original(base, name))

    return find


def _replace(rules: ClassRules, original: _Step) -> _Step:
    def replace(parser: Any, old: Any, new: Any) -> None:
        if not _is_ours() or not old or not old.get("init_args") or _same_class(old, new):
            original(parser, old, new)
        elif fills_defaults_in():
            # While defaults are filled in, the old class's arguments are only its defaults.
            for name in _arguments(old):
                old["init_args"].pop(name)
        else:
            before = _arguments(old)
            original(parser, old, new)
            paths = old["class_path"], new["class_path"]
            was, becomes = map(_defaults, paths)
            after = _arguments(old)
            # A value that is a default of the old class is reported only if the new class keeps it
            # and has another default.
            own = {name for name, value in before.items() if was.get(name, before) == value}
            kept = [n for n in after if n in own and becomes.get(n, before) != after[n]]
            dropped = [name for name in before if name not in after and name not in own]
            rules.note_change(*paths, kept, dropped)

    return replace


def _same_class(old: Any, new: Any) -> bool:
    paths = old["class_path"], new["class_path"]
    if paths[0] is None or paths[0] == paths[1]:
        return True
    one, other = map(imported_by_jsonargparse, paths)
    return one is other


def _arguments(spec: Any) -> dict[str, Any]:
    given = spec.get("init_args") or {}
    return dict(vars(given) if isinstance(given, Namespace) else given)


def _defaults(path: str) -> dict[str, Any]:
    return dict(vars(class_parser(path).get_defaults()))


def _read(rules: ClassRules, original: _Step) -> _Step:
    def read(val: Any, typehint: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_ours() or kwargs.get("serialize") or kwargs.get("instantiate_classes"):
            return original(val, typehint, *args, **kwargs)
        if isinstance(val, list) and not kwargs.get("append"):
            # A list replaces the earlier list. For two lists of the same length jsonargparse would
            # complete each item with the arguments of the earlier item at the same index, even if
            # their classes differ.
            kwargs["prev_val"] = None
        if (
            isinstance(val, str)
            and "." in val
            and val != kwargs.get("default")
            and is_hint_of_callable(typehint)
        ):
            found = _found(val)
            if callable(found) and not isinstance(found, type):
                rules.check_function(typehint, found, val)
        return original(val, typehint, *args, **kwargs)

    return read


def _class(original: _Step) -> _Step:
    def check(spec: Any, *args: Any, **kwargs: Any) -> Any:
        return original(with_nested_word(spec) if _is_ours() else spec, *args, **kwargs)

    return check


def _found(path: str) -> Any:
    """The object at an import path, or None."""
    try:
        return imported_by_jsonargparse(path)
    except Exception:  # a module may raise anything; jsonargparse says what is wrong
        return None


def _make(rules: ClassRules, original: _Step) -> _Step:
    def make(callable_type: Any, spec: Any) -> Any:
        if not _is_ours():
            return original(callable_type, spec)
        returned = result_of_callable(callable_type)
        path = class_path_of(returned, spec["class_path"])
        place = rules.check_maker(returned, imported_by_jsonargparse(path), path)
        if place is None:
            return original(callable_type, spec)
        # A function that makes an optimizer is called like the optimizer's class: with the
        # parameters and with its `init_args` as configured.
        stand_in = class_spec(import_path_of(place))
        return spec, *original(callable_type, stand_in)[1:]

    return make


def _untyped(rules: ClassRules, original: _Step) -> _Step:
    def untyped(val: Any, *args: Any, **kwargs: Any) -> Any:
        if is_class_spec(val) and _is_ours() and isinstance(val["class_path"], str):
            found = _found(val["class_path"])
            if found is not None:
                rules.check_untyped(found, val["class_path"])
        return original(val, *args, **kwargs)

    return untyped


def _import(original: _Step) -> _Step:
    def import_object(path: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(path, *args, **kwargs)
        except (Exception, SystemExit) as error:  # a module may raise anything
            text = why_not_imported(path, error) if _is_ours() and isinstance(path, str) else None
            if text is None:
                raise
            raise ImportError(text) from error

    return import_object


def _fill_in(original: _Step) -> _Step:
    def fill_in(parser: Any, cfg: Any) -> None:
        if not _WITHOUT.get():
            original(parser, cfg)

    return fill_in
