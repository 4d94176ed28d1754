"""Finding a renaming with which the tensors of a file would fit a net."""

from collections.abc import Mapping
from difflib import SequenceMatcher

from torch import Tensor
from torch.nn.parameter import is_lazy

__all__ = ["renaming"]

_MOST = 4
"""Largest number of renamings that are combined."""
_CANDIDATES = 64
_Change = tuple[tuple[str, str], ...]
"""Runs of parts of a name, each with what replaces it."""


def renaming(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Text about the prefix or renaming with which all tensors of a file would fit.

    Args:
        given: tensors of the file.
        own: tensors of the net.

    Returns:
        A sentence with a remedy; empty if there is none.

    Example:
        >>> from torch import ones
        >>> file, net = {"layers.0.w": ones(2), "head": ones(1)}, {"blocks.0.w": ones(2)}
        >>> renaming(file, net | {"head": ones(1)})
        'They fit with `layers` renamed to `blocks` in the names of the file.'
    """
    if prefix := _prefix(given, own):
        return (
            f"All {len(given)} tensors of the file fit below `{prefix}`: they are a part of this "
            "net. Give that part, or a file of the whole net."
        )
    names = {name: name for name, value in given.items() if not _is_in(name, value, own)}
    free = {name: value for name, value in own.items() if name not in given}
    changes: list[_Change] = []
    best: _Change
    while names and len(changes) < _MOST:
        best, most = (), 0
        for change in _candidates(names, given, free):
            renamed = {at: _renamed(name, change) for at, name in names.items()}
            fits = {name for at, name in renamed.items() if _is_in(name, given[at], free)}
            if len(fits) > most:
                best, most = change, len(fits)
        if not best:
            return ""
        renamed = {at: _renamed(name, best) for at, name in names.items()}
        fits = {name for at, name in renamed.items() if _is_in(name, given[at], free)}
        names = {at: name for at, name in names.items() if renamed[at] not in fits}
        free = {name: value for name, value in free.items() if name not in fits}
        changes.append(best)
    if not changes or names:
        return ""
    pairs = dict.fromkeys(pair for change in changes for pair in change)
    text = " and ".join(f"`{old}` renamed to `{new}`" for old, new in pairs)
    return f"They fit with {text} in the names of the file."


def _is_in(name: str, value: Tensor, own: Mapping[str, Tensor]) -> bool:
    return name in own and (is_lazy(own[name]) or own[name].shape == value.shape)


def _prefix(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """The prefix below which a net has all tensors of a file, if it is one."""
    first = next(iter(given), "")
    for name in own:
        prefix = name.removesuffix(f".{first}") + "."
        if all(_is_in(f"{prefix}{n}", value, own) for n, value in given.items()) and first:
            return prefix
    return ""


def _candidates(
    names: Mapping[str, str], given: Mapping[str, Tensor], free: Mapping[str, Tensor]
) -> list[_Change]:
    """What differs between some names of the file and those of the net of the same shape."""
    found: dict[_Change, None] = {}
    for at, name in list(names.items())[:_MOST]:
        for other in free:
            if len(found) < _CANDIDATES and _is_in(other, given[at], free):
                found[_difference(name.split("."), other.split("."))] = None
    return list(found)


def _difference(old: list[str], new: list[str]) -> _Change:
    """The runs of parts to replace in one name so that it becomes another."""
    change = []
    for kind, i, j, k, n in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "replace":
            change.append((old[i:j], new[k:n]))
        elif kind != "equal" and j < len(old):  # what is inserted stands before the next part
            change.append((old[i : j + 1], new[k : n + 1]))
        elif kind != "equal":
            change.append((old[i - 1 : j], new[k - 1 : n]))
    return tuple((".".join(before), ".".join(after)) for before, after in change)


def _renamed(name: str, change: _Change) -> str:
    """A name with each run of parts replaced where it first occurs."""
    for old, new in change:
        name = f".{name}.".replace(f".{old}.", f".{new}.", 1)[1:-1]
    return name
