"""Adding descriptions of inherited arguments to the docstring of a class."""

import inspect
import re

__all__ = ["complete_arguments"]

_ENTRY = re.compile(r"    (\*{0,2}\w+)(?: \([^)]*\))?:")
_LATER = re.compile(r"(Returns|Raises|Yields|Example|Examples|Reference|References|Attributes)::?$")


def complete_arguments(kind: type) -> None:
    """Add descriptions of shared arguments from its base classes to the docstring of a class.

    A class lists every argument in its signature, but describes only its own. After this call its
    docstring describes all arguments in the order of the signature, for ``help()``, the command
    line and the site. Call it when the class is made, after its base classes were completed.

    Args:
        kind: a class whose docstring has Google style; without a docstring it is not changed.

    Example:
        >>> class Base:
        ...     '''A base.
        ...
        ...     Args:
        ...         units: names of submodules.
        ...     '''
        ...     def __init__(self, units): ...
        >>> class Derived(Base):
        ...     '''A derived class.
        ...
        ...     Args:
        ...         scale: a factor.
        ...     '''
        ...     def __init__(self, scale, units): ...
        >>> complete_arguments(Derived)
        >>> print(Derived.__doc__)
        A derived class.
        <BLANKLINE>
        Args:
            scale: a factor.
            units: names of submodules.
    """
    own = vars(kind).get("__doc__")
    if not own:
        return
    before, entries, after = _parts(inspect.cleandoc(own))
    known = dict(entries)
    for base in kind.__mro__[1:]:
        text = vars(base).get("__doc__")
        if text:
            known = dict(_parts(inspect.cleandoc(text))[1]) | known
    names = [name for name in inspect.signature(kind).parameters if name in known]
    if set(names) <= set(entries):
        return
    listed = [*names, *(name for name in entries if name not in names)]
    lines = [*before, "", "Args:", *(line for name in listed for line in known[name])]
    kind.__doc__ = "\n".join([*lines, *([""] if after else []), *after])


def _parts(text: str) -> tuple[list[str], dict[str, list[str]], list[str]]:
    """The lines before the arguments, those of each argument, and the lines after them."""
    lines = text.splitlines()
    heads = [at for at, line in enumerate(lines) if line == "Args:"]
    if not heads:
        found = [at for at, line in enumerate(lines) if _LATER.match(line)]
        at = min(found, default=len(lines))
        return _trimmed(lines[:at]), {}, lines[at:]
    start = heads[0] + 1
    ends = [at for at, line in enumerate(lines) if at >= start and line[:1].strip()]
    end = min(ends, default=len(lines))
    entries: dict[str, list[str]] = {}
    name = ""
    for line in _trimmed(lines[start:end]):
        if match := _ENTRY.match(line):
            name = match[1]
        entries.setdefault(name, []).append(line)
    return _trimmed(lines[: heads[0]]), entries, lines[end:]


def _trimmed(lines: list[str]) -> list[str]:
    """The lines without empty lines at the end."""
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return lines
