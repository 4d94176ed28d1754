"""Resolving every spelling of a path: ``~``, ``$VAR`` and ``file://``."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

__all__ = ["PATH_ARGUMENTS", "is_remote", "local_path", "localised"]

PATH_ARGUMENTS = frozenset({"cache_dir", "data_dir", "dir", "dirpath", "folder", "log_dir", "path"})
PATH_ARGUMENTS |= {"ckpt_path", "default_root_dir", "init_from", "root", "root_dir", "save_dir"}
"""Names of path arguments of the Trainer, loggers, callbacks and data."""

_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]+)\})")
# `Path("s3://x")` is `s3:/x`; a single letter is a Windows drive.
_REMOTE = re.compile(r"^(?!file:)([A-Za-z][\w+.-]+):(?:/|:)")
# Lightning takes `file:///x` for a relative path and puts the working directory before it.
_FILE_URL = re.compile(r"^(?:.*/)?file:(?://(?:localhost(?=/))?|(?=/))|^file:")


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether the path is a URL that fsspec opens, such as ``s3://`` or ``memory://``."""
    return _REMOTE.match(os.fspath(path)) is not None


def local_path(path: str | os.PathLike[str], argument: str = "path") -> str:
    """Resolve a path to one that the system can open; a remote URL is not changed.

    Args:
        path: may begin with ``~`` or ``~user``, hold ``$VAR`` or ``${VAR}``, or be a ``file://``
            URL. A variable whose value is an absolute path starts the path anew.
        argument: the argument that the path comes from, for the error.

    Raises:
        ValueError: if a variable or a user is not defined.

    Example:
        >>> local_path("file:///data/a%20b"), local_path("s3://bucket/$x")
        ('/data/a b', 's3://bucket/$x')
    """
    text = os.fspath(path)
    if is_remote(text):
        return re.sub(r"^([\w+.-]+):/(?=[^/])", r"\1://", text)
    if (url := _FILE_URL.match(text)) is not None:
        text = unquote(text[url.end() :])
        text = text[1:] if text.startswith("/~") else text  # `Path("file://~")` is `file:/~`

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in os.environ:
            raise ValueError(
                f"`{argument}` is {os.fspath(path)!r}, and the variable {name} is not defined. "
                f"Define it (`export {name}=...`), or write the path out."
            )
        return os.environ[name]

    parts = text.split("/")
    filled = [
        # If a file has this very name, dollar sign included, that file is meant.
        part
        if "$" in part and os.path.lexists("/".join(parts[: n + 1]))
        else _VARIABLE.sub(value, part)
        for n, part in enumerate(parts)
    ]
    # Lightning prepends the working directory: `FOLDER/$DATA` means $DATA.
    anew = [n for n, part in enumerate(filled) if n and part.startswith("/") and parts[n] != part]
    text = "/".join(filled[anew[-1] if anew else 0 :])
    if text.startswith("~"):
        expanded = os.path.expanduser(text)
        if expanded == text:
            raise ValueError(
                f"`{argument}` is {os.fspath(path)!r}, and no user {text[1:].partition('/')[0]!r} "
                "is known. Write the path out."
            )
        text = expanded
    return text


def localised(node: Any, changed: Callable[[Any, Any, Any], None], at: str = "") -> None:
    """Resolve every path in a tree of arguments, in place.

    Args:
        node: nested dicts, lists and jsonargparse's namespaces.
        changed: called with container, key and old value before an entry is replaced.
        at: dotted name of the node, for errors.

    Raises:
        ValueError: if a variable or a user is not defined.
    """
    if isinstance(node, list):
        for item in node:
            localised(item, changed, at)
        return
    items = node if isinstance(node, dict) else getattr(node, "__dict__", None)
    if items is None:
        return
    for key, value in list(items.items()):
        name = f"{at}.{key}" if at else str(key)
        if key in PATH_ARGUMENTS and isinstance(value, str | Path):
            local = local_path(value, name)
            if local != os.fspath(value):
                changed(items, key, value)
                items[key] = local
        elif not isinstance(value, str):
            localised(value, changed, name)
