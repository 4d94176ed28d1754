"""Texts and lists of at most a few lines, for errors."""

from collections.abc import Callable, Iterable
from difflib import SequenceMatcher
from itertools import accumulate

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
    names: Iterable[str],
    wanted: str | None = None,
    most: int = 20,
    separator: str = ", ",
    longest: int = 700,
) -> str:
    """What there is to choose from: all of it, or so many names and the number of the others.

    Args:
        names: to choose from.
        wanted: what was asked for; where not all are shown, the names closest to it come first.
        most: names shown.
        separator: between two of them.
        longest: characters shown, about.

    Example:
        >>> choice(["embed", "head"]), choice([])
        ('embed, head', 'none')
        >>> choice((f"layers.{i}" for i in range(300)), "layer.7", most=3)
        'layers.7, layers.17, layers.27 and 297 more'
    """
    names = [shortened(name, longest) for name in dict.fromkeys(names)]
    shown = _fitting(names, most, longest)
    if shown < len(names) and wanted is not None:
        # Stable: of names that are equally close the first ones come first.
        names = sorted(names, key=_likeness_to(wanted), reverse=True)
        shown = _fitting(names, most, longest)
    others = len(names) - shown
    return (separator.join(names[:shown]) or "none") + (f" and {others} more" if others else "")


def _fitting(names: list[str], most: int, longest: int) -> int:
    """How many of the first names are shown: one at least, if there is one."""
    lengths = accumulate(len(name) + 2 for name in names[:most])
    return max(sum(length <= longest for length in lengths), min(len(names), 1))


def _likeness_to(wanted: str) -> Callable[[str], float]:
    matcher = SequenceMatcher()
    matcher.set_seq2(wanted.lower())  # which it analyses once

    def likeness(name: str) -> float:
        matcher.set_seq1(name.lower())
        return matcher.ratio()

    return likeness
