"""Finding a renaming with which the tensors of a file would fit a net."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn.parameter import is_lazy

__all__ = ["renaming"]

_MOST = 4
"""Largest number of renamings that are combined."""
_CANDIDATES = 64


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
    left = {n: v for n, v in given.items() if not _is_in(n, v, own)}
    free = {n: v for n, v in own.items() if n not in given}
    if prefix := _prefix(given, own):
        return (
            f"All {len(given)} tensors of the file fit below `{prefix}`: they are a part of this "
            "net. Give that part, or a file of the whole net."
        )
    steps: list[tuple[str, str]] = []
    names = {name: name for name in left}
    while len(steps) < _MOST:
        open_ = {at: name for at, name in names.items() if not _is_in(name, left[at], free)}
        if not open_:
            break
        best, most = None, 0
        for candidate in _candidates(open_, left, free):
            gained = sum(_is_in(_renamed(n, *candidate), left[at], free) for at, n in open_.items())
            if gained > most:
                best, most = candidate, gained
        if best is None:
            return ""
        names |= {at: _renamed(name, *best) for at, name in open_.items()}
        steps.append(best)
    fits = all(_is_in(name, left[at], free) for at, name in names.items())
    if not steps or not fits or len(set(names.values())) < len(names):
        return ""
    changes = " and ".join(f"`{old}` renamed to `{new}`" for old, new in steps)
    return f"They fit with {changes} in the names of the file."


def _is_in(name: str, value: Tensor, own: Mapping[str, Tensor]) -> bool:
    return name in own and (is_lazy(own[name]) or own[name].shape == value.shape)


def _prefix(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """The prefix below which a net has all tensors of a file, if it is one."""
    if not given:
        return ""
    first = next(iter(given))
    for name in own:
        if name.endswith(f".{first}"):
            prefix = name[: -len(first)]
            if all(_is_in(f"{prefix}{n}", value, own) for n, value in given.items()):
                return prefix
    return ""


def _candidates(
    names: Mapping[str, str], left: Mapping[str, Tensor], free: Mapping[str, Tensor]
) -> list[tuple[str, str]]:
    """Parts of names that differ between a name of the file and one of the net of that shape."""
    found: dict[tuple[str, str], None] = {}
    for at, name in list(names.items())[:_MOST]:
        for other in free:
            if len(found) < _CANDIDATES and _is_in(other, left[at], free):
                found[_difference(name.split("."), other.split("."))] = None
    return list(found)


def _difference(old: list[str], new: list[str]) -> tuple[str, str]:
    """What remains of two names without the parts at both ends that they share."""
    start, end = 0, 0
    while start < min(len(old), len(new)) - 1 and old[start] == new[start]:
        start += 1
    while end < min(len(old), len(new)) - 1 - start and old[-1 - end] == new[-1 - end]:
        end += 1
    return ".".join(old[start : len(old) - end]), ".".join(new[start : len(new) - end])


def _renamed(name: str, old: str, new: str) -> str:
    """A name with one run of its parts replaced, the first time it occurs."""
    return f".{name}.".replace(f".{old}.", f".{new}.", 1)[1:-1]
