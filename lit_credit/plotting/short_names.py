"""Shortening names of submodules for figures."""

from collections.abc import Iterable, Sequence

__all__ = ["short_names"]


def short_names(names: Iterable[str]) -> list[str]:
    """Dotted names without the parts that all share at either end, as long as they differ.

    No name begins with a bare number.

    Args:
        names: names of submodules.

    Example:
        >>> short_names(["model.encoder.0.attn", "model.decoder.0.attn"])
        ['encoder', 'decoder']
        >>> short_names(["model.h.0.attn", "model.h.1.attn"])
        ['h.0', 'h.1']
        >>> short_names(["model.attn"])
        ['attn']
    """
    split = [name.split(".") for name in names]
    last = _shared([list(reversed(parts)) for parts in split]) if len(split) > 1 else 0
    split = [parts[: len(parts) - last] for parts in split]
    first = _shared(split)
    while first and any(parts[first].isdigit() for parts in split):
        first -= 1
    return [".".join(parts[first:]) for parts in split]


def _shared(split: Sequence[Sequence[str]]) -> int:
    """How many of the first parts are the same in all names; one part of each name stays."""
    # `zip` ends with the shortest name.
    alike = [
        len(set(column)) == 1 for column in zip(*(parts[:-1] for parts in split), strict=False)
    ]
    return (*alike, False).index(False)
