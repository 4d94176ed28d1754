"""Which of many groups a figure shows in colour, and how long their labels are."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.colors import to_hex, to_rgb

from lit_credit.plotting._runs import MOST_COLORS, run_colors

__all__ = ["MUTED", "colors_of", "highlighted", "shortened_label"]

MUTED = "#C4C4C4"
"""Colour of the groups in the background."""
_EXTREMES = 3
"""Number of the best, and of the worst groups, that are shown in colour."""
_TINTS = ((0.0, 0.0), (0.0, 0.4), (1.0, 0.45), (0.0, 0.7), (1.0, 0.65))
"""Black or white, and its share in a colour."""
_LONGEST = 34
"""Characters of a label in a figure."""


def highlighted(
    scores: Mapping[str, float], better: str = "neither", always: Sequence[str] = ()
) -> list[str]:
    """The groups in colour: all if there are few, else the best three and the worst three.

    Args:
        scores: label to the mean at the end; NaN if it is undefined.
        better: whether large (``up``) or small (``down``) scores are good.
        always: labels that are shown in any case.

    Example:
        >>> highlighted({f"R{i}": float(i) for i in range(20)}, "up", ["R9"])
        ['R0', 'R1', 'R2', 'R9', 'R17', 'R18', 'R19']
    """
    if len(scores) <= MOST_COLORS:
        return list(scores)
    ranked = sorted(
        (label for label, score in scores.items() if not math.isnan(score)),
        key=lambda label: scores[label],
        reverse=better == "up",
    )
    chosen = {*ranked[:_EXTREMES], *ranked[-_EXTREMES:], *always}
    if not ranked:
        chosen = {*list(scores)[: 2 * _EXTREMES], *always}
    return [label for label in scores if label in chosen]


def colors_of(
    labels: Sequence[str], shown: Sequence[str], own: Mapping[str, str | None]
) -> dict[str, str]:
    """The colours of the highlighted labels, and grey for all others.

    Labels that want one colour, because they are of one rule, get it and lighter and darker tints.

    Example:
        >>> labels = ["DFA a", "DFA b"]
        >>> colors_of(labels, labels, dict.fromkeys(labels, "r"))
        {'DFA a': 'r', 'DFA b': '#990000'}
    """
    tinted: dict[str, str] = {}
    for label in shown:
        wanted = own.get(label)
        if wanted is not None:
            used = sum(own.get(other) == wanted for other in tinted)
            tinted[label] = wanted if used >= len(_TINTS) else _tint(wanted, *_TINTS[used])
    taken = {label: tinted.get(label) for label in shown}
    return dict.fromkeys(labels, MUTED) | run_colors(shown, taken)


def _tint(color: str, towards: float, share: float) -> str:
    """A colour mixed with a share of black (0) or white (1)."""
    if not share:
        return color
    red, green, blue = ((1 - share) * part + share * towards for part in to_rgb(color))
    return to_hex((red, green, blue))


def shortened_label(label: str) -> str:
    """A label with its middle left out if it is too long for a figure."""
    if len(label) <= _LONGEST:
        return label
    half = (_LONGEST - 3) // 2
    return f"{label[:half]} .. {label[-half:]}"
