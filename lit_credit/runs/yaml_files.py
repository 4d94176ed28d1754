"""Reading YAML that may be broken or hostile."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

__all__ = ["check_yaml", "checked_loader", "parse_yaml", "read_yaml"]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST = 100
_LONGEST_ALIASES = 100_000
_RESOLVER = yaml.resolver.Resolver()
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file of plain data.

    Args:
        path: of the file, UTF-8.

    Returns:
        Mappings, lists and scalars.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: if the file is not YAML, or :func:`check_yaml` refuses it. The text is one line
            and does not name the path.
    """
    data = Path(path).read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: not UTF-8 text. Save the file as UTF-8.") from error
    return parse_yaml(text)


def parse_yaml(text: str) -> Any:
    """Parse YAML of plain data; raises as :func:`read_yaml` does.

    Example:
        >>> parse_yaml("{a: 1, b: [x, 2.5]}")
        {'a': 1, 'b': ['x', 2.5]}
    """
    try:
        check_yaml(text)
        return _plain_data(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = "" if mark is None else f"line {mark.line + 1}: "
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise ValueError(f"{at}not YAML of plain data: {what}.") from error
    except yaml.YAMLError as error:  # for example control characters
        raise ValueError(f"not YAML: {' '.join(str(error).split())}.") from error
    except (KeyError, AttributeError) as error:  # for example `!!bool maybe`, `!!timestamp soon`
        raise ValueError(f"a value does not fit its tag: {error}.") from error


def _plain_data(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def checked_loader(load: Callable[[str], Any]) -> Callable[..., Any]:
    """Wrap ``load`` so that it refuses what :func:`check_yaml` refuses.

    To parsers of command lines, a ``yaml.YAMLError`` means that a word is text and not YAML. So all
    errors of ``load`` become a ``yaml.YAMLError``, and refused YAML raises a ValueError.

    Args:
        load: a function that parses YAML of plain data.

    Returns:
        A function of the text and the path of its file, for errors.
    """

    def checked(text: str, path: Any = "") -> Any:
        at = f"{path}: " if path else ""
        try:
            check_yaml(text)
        except yaml.YAMLError:
            pass  # `load` raises it too
        except ValueError as error:
            raise ValueError(f"{at}{error}") from error
        try:
            found = load(text)
        except yaml.YAMLError as error:
            raise yaml.YAMLError(f"{at}{error}") from error
        except (KeyError, AttributeError, ValueError) as error:
            raise yaml.YAMLError(f"{at}a value does not fit its tag: {error}") from error
        _refuse_two_spellings(found, at)
        return found

    return checked


def _refuse_two_spellings(config: Any, at: str) -> None:
    """Refuse one argument set twice: ``a: {b: 1}`` and ``a.b: 2``, ``b: [x]`` and ``b+: [y]``."""
    spellings: dict[str, str] = {}
    for spelling in _arguments(config):
        first = spellings.setdefault(spelling.removesuffix("+"), spelling)
        if first is not spelling:
            raise ValueError(
                f"{at}`{first}` and `{spelling}` set one argument, and one of them would be lost. "
                "Leave one of the two out."
            )


def _arguments(value: Any, path: str = "") -> Iterator[str]:
    """The dotted names that a configuration sets; a name ends in ``+`` if it adds to a list."""
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        own = f"{path}.{key}" if path else str(key)
        if isinstance(item, dict) and item and not own.endswith("+"):
            yield from _arguments(item, own)
        elif not (own.endswith("+") and isinstance(item, int | float)):  # a count of a "C+"
            yield own


def check_yaml(text: str) -> None:
    """Refuse YAML that has a key twice, or that grows when it is read.

    A loader silently keeps the last of two equal keys. Aliases of aliases turn a hundred bytes into
    a terabyte, and an alias inside its own anchor makes a circle.

    Args:
        text: YAML.

    Raises:
        ValueError: for a key that appears twice in a mapping, an anchor that contains itself,
            aliases that stand for more than 100,000 characters, or more than 100 levels.
        yaml.YAMLError: if it is not YAML.

    Example:
        >>> check_yaml("{lr: 0.1, lr: 0.2}")
        Traceback (most recent call last):
        ValueError: line 1: the key `lr` stands twice, first in line 1. Leave one of the two out.
    """
    # Parse events, not nodes: no data are built, and no function recurses.
    opened = [_Collection()]
    sizes: dict[str, int] = {}
    aliased = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            sizes = {}
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(opened) > _DEEPEST:
                raise ValueError(f"line {line}: more than {_DEEPEST} levels of nesting.")
            opened.append(_Collection(event))
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = opened.pop()
            sizes[closed.anchor] = closed.size
            opened[-1].add(closed.size)
        elif isinstance(event, yaml.AliasEvent):
            if any(event.anchor == outer.anchor for outer in opened):
                raise ValueError(
                    f"line {line}: `*{event.anchor}` stands inside `&{event.anchor}`, and would "
                    "contain itself. Write out what is meant."
                )
            size = sizes.get(event.anchor, 1)
            aliased += size
            if aliased > _LONGEST_ALIASES:
                raise ValueError(
                    f"line {line}: the aliases up to `*{event.anchor}` stand for {aliased} "
                    f"characters, more than {_LONGEST_ALIASES}. Write out what is meant."
                )
            opened[-1].add(size)
        elif isinstance(event, yaml.ScalarEvent):
            sizes[event.anchor or ""] = 1 + len(event.value)
            opened[-1].add(1 + len(event.value), event)


class _Collection:
    """A mapping or list that has not ended yet."""

    def __init__(self, event: Any = None) -> None:
        self.anchor = (event and event.anchor) or ""
        self.size = 1
        """Number of characters, with aliases written out."""
        self._keys: dict[tuple[str, str], int] = {}
        """Tag and text of each key, to its line."""
        self._is_mapping = isinstance(event, yaml.MappingStartEvent)
        self._at_key = False

    def add(self, size: int, scalar: Any = None) -> None:
        """Count a part; in a mapping, every other part is a key."""
        self.size += size
        self._at_key = self._is_mapping and not self._at_key
        if not self._at_key or scalar is None:
            return
        tag = scalar.tag or _RESOLVER.resolve(yaml.ScalarNode, scalar.value, scalar.implicit)
        if tag == _MERGE:
            return
        key = (tag, scalar.value if tag == _TEXT else scalar.value.lower())
        line = scalar.start_mark.line + 1
        if key in self._keys:
            raise ValueError(
                f"line {line}: the key `{scalar.value}` stands twice, first in line "
                f"{self._keys[key]}. Leave one of the two out."
            )
        self._keys[key] = line
