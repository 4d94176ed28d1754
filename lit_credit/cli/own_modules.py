"""Finding modules of one's own, and saying why one of them cannot be imported."""

import os
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from inspect import isclass
from itertools import pairwise
from pathlib import Path

__all__ = ["configs_of", "find_own_modules", "why_not_imported"]

_CONFIG = ("--config", "-c")
_NAME_CLASSES = (*_CONFIG, "--rule", "--suite")
"""Options whose files may name classes."""


def configs_of(words: Sequence[str], options: Sequence[str] = _CONFIG) -> list[str]:
    """What a command line gives as ``--config``, or as other options, in order.

    Example:
        >>> configs_of(["fit", "--config", "a.yaml", "--config=b.yaml"])
        ['a.yaml', 'b.yaml']
    """
    found = []
    for word, following in pairwise((*words, "")):
        option, given, value = word.partition("=")
        if option in options and (given or following):
            found.append(value if given else following)
    return found


def find_own_modules(words: Sequence[str]) -> None:
    """Let Python find modules in the working directory, and beside each ``--config``.

    Also beside a file of ``--rule`` or ``--suite`` of ``lit-credit benchmark``.

    Args:
        words: the words after ``lit-credit``.
    """
    given = configs_of(words, _NAME_CLASSES)
    files = [Path(file).expanduser() for file in given if "://" not in file]
    folders = [os.getcwd(), *(str(f.absolute().parent) for f in files if f.is_file())]
    known = {os.path.abspath(path) for path in sys.path}
    new = [folder for folder in dict.fromkeys(folders) if folder not in known]
    sys.path[:0] = new


def why_not_imported(path: str, error: BaseException) -> str | None:
    """Module, file, line and reason of a class or function that cannot be imported.

    Args:
        path: its import path.
        error: what its import raised.

    Returns:
        The text; None if the error says all that is known, such as one about the form of the path.
    """
    module, _, name = path.rpartition(".")
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, SyntaxError):
        return f"module {module!r}: {_line(error.filename, error.lineno)}: {error.msg}"
    where = _innermost(error)
    if where:
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        return f"module {module!r}: {where}: {kind}{reason}"
    top = path.partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and error.name == top:
        return (
            f"{reason}. Put {top}.py or the package {top} into the working directory, beside the "
            "YAML file that names it, or into a folder of PYTHONPATH, or install it"
        )
    if isinstance(error, ModuleNotFoundError | AttributeError):
        while module not in sys.modules and "." in module:  # the part of the path that exists
            module, _, name = module.rpartition(".")
        return f"module {module!r} has no {name!r}. {_has(module, name)}"
    return None


def _innermost(error: BaseException) -> str:
    """File and line of the innermost code that ran while a module was imported, if any did.

    Code of installed packages counts only if no other code ran.
    """
    frames = [
        (frame.f_code.co_name, frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    start = max((i for i, frame in enumerate(frames) if frame[0] == "import_object"), default=-1)
    ran = [frame for frame in frames[start + 1 :] if "importlib" not in frame[1]]
    own = [frame for frame in ran if "site-packages" not in frame[1]] or ran
    return _line(*own[-1][1:]) if own else ""


def _line(file: str | None, line: int | None) -> str:
    return f"{os.path.relpath(file) if file else 'unknown file'}, line {line}"


def _has(module: str, name: str) -> str:
    """The file of a module, and the class in it that a misspelt name may mean."""
    found = sys.modules.get(module)
    names = [n for n, value in vars(found).items() if isclass(value)] if found else []
    close = get_close_matches(name, names, n=1)
    file = getattr(found, "__file__", None)
    place = f"The module is {file}." if file else "The module is a folder without `__init__.py`."
    return f"{place} Did you mean {close[0]}?" if close else place
