"""Shortening names of submodules for figures."""

from collections.abc import Iterable

__all__ = ["short_names"]


def short_names(names: Iterable[str]) -> list[str]:
    """Dotted names without their shared leading parts; no name begins with a bare number.

    Args:
        names: names of submodules.

    Example:
        >>> short_names(["model.encoder.0.attn", "model.decoder.0.attn"])
        ['encoder.0.attn', 'decoder.0.attn']
        >>> short_names(["model.h.0.attn", "model.h.1.attn"])
        ['h.0.attn', 'h.1.attn']
    """
    split = [name.split(".") for name in names]
    # The last part always stays; `zip` ends with the shortest name.
    alike = [
        len(set(column)) == 1 for column in zip(*(parts[:-1] for parts in split), strict=False)
    ]
    shared = (*alike, False).index(False)
    while shared and any(parts[shared].isdigit() for parts in split):
        shared -= 1
    return [".".join(parts[shared:]) for parts in split]
