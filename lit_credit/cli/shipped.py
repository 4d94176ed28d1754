"""Finding the configurations that ship with lit_credit."""

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import lit_credit

__all__ = ["shipped_configs", "shipped_file", "shipped_names", "with_shipped"]

_OPTIONS = ("-c", "--config", "--grid")
_FOLDER = "configs"


def shipped_configs() -> Path | None:
    """The folder of the configurations: in the installed package, or in a checkout beside it."""
    package = Path(lit_credit.__file__).parent
    in_checkout = package.with_name(_FOLDER)
    if (package / _FOLDER).is_dir():
        return package / _FOLDER
    is_checkout = (package.parent / "pyproject.toml").is_file() and in_checkout.is_dir()
    return in_checkout if is_checkout else None


def shipped_file(name: str) -> Path | None:
    """The shipped configuration of a name; None if there is none.

    Args:
        name: path below ``configs``, with or without this folder.

    Example:
        >>> shipped_file("configs/rules/dfa.yaml") == shipped_file("rules/dfa.yaml") != None
        True
    """
    folder, path = shipped_configs(), Path(name)
    if folder is None or path.is_absolute() or ".." in path.parts:
        return None
    below = path.parts[1:] if path.parts[:1] == (_FOLDER,) else path.parts
    file = folder.joinpath(*below)
    return file if file.is_file() else None


def shipped_names(suffix: str = ".yaml") -> list[str]:
    """The names of all shipped configurations, sorted."""
    folder = shipped_configs()
    found: Iterable[Path] = () if folder is None else folder.rglob(f"*{suffix}")
    return sorted(path.relative_to(folder).as_posix() for path in found if folder)


def with_shipped(words: Sequence[str]) -> list[str]:
    """The words, with the paths of shipped configurations where no file of that name exists.

    A line says which file is taken.

    Args:
        words: the words after ``lit-credit``.
    """
    found, option = [], ""
    for word in words:
        name, given, value = word.partition("=")
        if option in _OPTIONS:
            found.append(_taken(option, word))
        elif given and name in _OPTIONS:
            found.append(f"{name}={_taken(name, value)}")
        else:
            found.append(word)
        option = word
    return found


def _taken(option: str, name: str) -> str:
    if not name.endswith((".yaml", ".yml")) or "://" in name:
        return name
    file = None if os.path.exists(Path(name).expanduser()) else shipped_file(name)
    if file is None:
        return name
    print(f"lit-credit: {option} {name}: {file}, which ships with lit_credit.", file=sys.stderr)
    return str(file)
