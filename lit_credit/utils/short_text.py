"""Shortening texts and lists for errors."""

from collections.abc import Callable, Iterable
from difflib import SequenceMatcher
from itertools import accumulate

__all__ = ["choice", "shortened"]


def shortened(text: str, longest: int = 1000) -> str:
    """Remove the middle of a text that is too long; its end stays, where an error has its remedy.

    Args:
        text: one line.
        longest: number of characters to keep, a third of them at the end.

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
    """List names to choose from: all of them, or some and the number of the others.

    Args:
        names: the names to choose from.
        wanted: the name that was asked for; if not all names are shown, the closest come first.
        most: largest number of names shown.
        separator: text between two names.
        longest: approximate number of characters shown.

    Example:
        >>> choice(["embed", "head"]), choice([])
        ('embed, head', 'none')
        >>> choice((f"layers.{i}" for i in range(300)), "layer.7", most=3)
        'layers.7, layers.17, layers.27 and 297 more'
    """
    names = [shortened(name, longest) for name in dict.fromkeys(names)]
    shown = _fitting(names, most, longest)
    if shown < len(names) and wanted is not None:
        # The sort is stable: equally close names keep their order.
        names = sorted(names, key=_likeness_to(wanted), reverse=True)
        shown = _fitting(names, most, longest)
    others = len(names) - shown
    return (separator.join(names[:shown]) or "none") + (f" and {others} more" if others else "")


def _fitting(names: list[str], most: int, longest: int) -> int:
    """How many of the first names to show: at least one, if there is one."""
    lengths = accumulate(len(name) + 2 for name in names[:most])
    return max(sum(length <= longest for length in lengths), min(len(names), 1))


def _likeness_to(wanted: str) -> Callable[[str], float]:
    matcher = SequenceMatcher()
    matcher.set_seq2(wanted.lower())  # the matcher analyses its second text once

    def likeness(name: str) -> float:
        matcher.set_seq1(name.lower())
        return matcher.ratio()

    return likeness
