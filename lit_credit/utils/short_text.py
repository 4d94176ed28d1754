"""Texts and lists of at most a few lines, for errors."""

from collections.abc import Iterable
from difflib import SequenceMatcher

__all__ = ["choice", "shortened"]


def shortened(text: str, longest: int = 1000) -> str:
    """A text without its middle, if it is too long; an error's remedy stands at its end.

    Args:
        text: one line.
        longest: characters that are kept, of which a third at the end.

    Example:
        >>> shortened("abcdefghi", longest=6)
        'abcd ... hi'
    """
    if len(text) <= longest:
        return text
    end = longest // 3
    return f"{text[: longest - end]} ... {text[-end:]}"


def choice(
    names: Iterable[str], wanted: str | None = None, most: int = 20, separator: str = ", "
) -> str:
    """What there is to choose from: all of it, or so many names and the number of the others.

    Args:
        names: to choose from.
        wanted: what was asked for; where not all are shown, the names closest to it come first.
        most: names shown.
        separator: between two of them.

    Example:
        >>> choice(["embed", "head"]), choice([])
        ('embed, head', 'none')
        >>> choice((f"layers.{i}" for i in range(300)), "layer.7", most=3)
        'layers.7, layers.17, layers.27 and 297 more'
    """
    names = list(dict.fromkeys(names))
    shown = names
    if len(names) > most:
        if wanted is not None:
            # Stable: of names that are equally close the first ones come first.
            names = sorted(names, key=lambda name: -_likeness(wanted, name))
        shown = names[:most]
    others = len(names) - len(shown)
    return (separator.join(shown) or "none") + (f" and {others} more" if others else "")


def _likeness(wanted: str, name: str) -> float:
    return SequenceMatcher(None, wanted.lower(), name.lower()).ratio()
