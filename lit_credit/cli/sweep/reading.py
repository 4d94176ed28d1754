"""Reading the words of many points, of which most differ in numbers only."""

import inspect
import math
from collections.abc import Sequence
from copy import deepcopy
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from lightning.pytorch import Trainer

from lit_credit.cli.configuration import ReadWords, read_words
from lit_credit.cli.sweep.grid import Point, as_word
from lit_credit.utils.private_names import imported_by_jsonargparse

__all__ = ["PointReader"]


class PointReader:
    """Reads the words of points.

    To read a line of words takes a tenth of a second, because every value is checked. A point that
    differs from one that was read before in numbers only is not read: its numbers replace the
    others, if their arguments take every number of this type. What is found is the same.

    Args:
        base: the words after ``lit-credit fit`` before the overrides of a point.
    """

    def __init__(self, base: Sequence[str]) -> None:
        self._base = base
        self._known: dict[tuple[Any, ...], ReadWords | None] = {}

    def words(self, point: Point) -> list[str]:
        """The words of a point."""
        return [*self._base, *(f"--{k}={as_word(v)}" for k, v in point.overrides.items())]

    def read(self, point: Point) -> ReadWords:
        """Read a point.

        Raises:
            ValueError: if ``fit`` refuses the words, with its reason in one line.
        """
        numbers = {key: v for key, v in point.overrides.items() if _is_number(v)}
        others = {key: as_word(v) for key, v in point.overrides.items() if key not in numbers}
        alike = (*others.items(), *((key, type(v)) for key, v in numbers.items()))
        if (known := self._known.get(alike)) is not None:
            read = deepcopy(known)
            _replace(read, numbers)
            return read
        read = read_words(self.words(point))
        if numbers and alike not in self._known:
            free = all(_takes_all(read, key, value) for key, value in numbers.items())
            self._known[alike] = deepcopy(read) if free else None
        return read


def _is_number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _replace(read: ReadWords, numbers: dict[str, Any]) -> None:
    for key, value in numbers.items():
        read.namespace.fit[key] = value
        *path, last = key.split(".")
        place = read.configuration
        for name in path:
            place = place[name]
        place[last] = value


def _takes_all(read: ReadWords, key: str, value: Any) -> bool:
    """Whether an argument has kept a number as it is, and takes every number of the same type."""
    config = read.namespace.fit
    found = config.get(key)
    if type(found) is not type(value) or found != value:
        return False
    owner, _, name = key.rpartition(".")
    if owner == "trainer":
        return type(value) in _hints(Trainer, name)
    path = config.get(f"{owner.removesuffix('.init_args')}.class_path")
    if not owner.endswith(".init_args") or not isinstance(path, str):
        return False
    return type(value) in _hints(imported_by_jsonargparse(path), name)


def _hints(maker: Any, name: str) -> tuple[Any, ...]:
    """The types that an argument of a class or function may have; () if that is not clear."""
    if not inspect.isclass(maker):
        return _of_function(maker, name) or ()
    for kind in maker.__mro__:
        found = _of_function(vars(kind)["__init__"], name) if "__init__" in vars(kind) else ()
        if found is None or found:
            return found or ()
    return ()


def _of_function(function: Any, name: str) -> tuple[Any, ...] | None:
    """Types of an argument; () if the function hands it on, None if they are not clear."""
    try:
        parameters = inspect.signature(function).parameters
        if name in parameters:
            hint = get_type_hints(function, include_extras=True)[name]
            return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    except Exception:  # hints may name what only type checkers import
        return None
    return () if any(p.kind is p.VAR_KEYWORD for p in parameters.values()) else None
