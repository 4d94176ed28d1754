"""Telling that code of one's own has changed since a run ended."""

import hashlib
import json
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["SourceFiles", "code_notes", "read_code", "write_code"]

_FILE = "code.json"


class SourceFiles:
    """Digests of one's own source files behind the classes of configurations.

    These are the loaded modules in or below the folder of a class, or of its package, that neither
    lit_credit nor an installed package defines.
    """

    def __init__(self) -> None:
        self._below = cache(_digests_below)

    def of(self, config: Any) -> dict[str, str]:
        """Path of each file to its digest.

        Args:
            config: a configuration of ``lit-credit fit``, whose classes have been imported.
        """
        modules = {path.rpartition(".")[0] for path in _class_paths(config)}
        folders = frozenset(folder for name in modules if (folder := _folder(name)))
        # Points of one grid name the same few classes: all modules are looked at once, and again
        # when more are loaded.
        return self._below(folders, len(sys.modules)) if folders else {}


def write_code(folder: Path, code: Mapping[str, str]) -> None:
    """Write the digests into the folder of a run; without own code there is no file."""
    if code:
        (folder / _FILE).write_text(json.dumps(code, indent=1), encoding="utf-8")


def read_code(folder: Path) -> dict[str, str]:
    """Read what :func:`write_code` has written; empty if there is none, or it is damaged."""
    try:
        found = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def code_notes(runs: Iterable[tuple[Path, Mapping[str, str]]]) -> list[str]:
    """A line for each file that has changed since runs ended.

    Args:
        runs: folder and present digests of each finished run.
    """
    changed: dict[str, list[Path]] = {}
    for folder, code in runs:
        before = read_code(folder)
        for file in code:
            if before.get(file, code[file]) != code[file]:
                changed.setdefault(file, []).append(folder)
    return [_note(file, folders) for file, folders in changed.items()]


def _note(file: str, folders: Sequence[Path]) -> str:
    runs = "1 finished run" if len(folders) == 1 else f"{len(folders)} finished runs"
    return (
        f"{file} has changed since {runs}, which {'is' if len(folders) == 1 else 'are'} not "
        f"repeated. To run them with the new code, give another --out, or remove their folders, "
        f"such as {folders[0]}."
    )


def _class_paths(config: Any) -> Iterable[str]:
    if isinstance(config, Mapping):
        path = config.get("class_path")
        if isinstance(path, str):
            yield path
    values = config.values() if isinstance(config, Mapping) else config
    if isinstance(config, Mapping | list | tuple):
        for value in values:
            yield from _class_paths(value)


def _own_file(module: str) -> Path | None:
    """The file of a loaded module that neither lit_credit nor an installed package defines."""
    if module.partition(".")[0] in ("", "lit_credit", "__main__"):
        return None
    file = getattr(sys.modules.get(module), "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py"):
        return None
    path = Path(file)
    installed = any(folder in path.parents for folder in _installed())
    return None if installed or not path.is_file() else path


@cache
def _installed() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return tuple({Path(paths[key]) for key in ("stdlib", "platstdlib", "purelib", "platlib")})


def _folder(module: str) -> Path | None:
    """The folder of one's own module, or of the package that it belongs to."""
    file = _own_file(module)
    package = _own_file(module.partition(".")[0])
    return (package or file).parent if file else None


def _digests_below(folders: frozenset[Path], n_modules: int) -> dict[str, str]:
    loaded = {path for name in list(sys.modules) if (path := _own_file(name))}
    files = sorted(path for path in loaded if folders & set(path.parents))
    return {str(path): _digest(path) for path in files}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
