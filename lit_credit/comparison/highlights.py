"""Which of many groups a figure shows in colour, and how long their labels are."""

import math
from collections.abc import Mapping, Sequence

from lit_credit.plotting._runs import MOST_COLORS, run_colors

__all__ = ["MUTED", "colors_of", "highlighted", "shortened_label"]

MUTED = "#C4C4C4"
"""Colour of the groups in the background."""
_EXTREMES = 3
"""Number of the best, and of the worst groups, that are shown in colour."""
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
    """The colours of the highlighted labels, and grey for all others."""
    return dict.fromkeys(labels, MUTED) | run_colors(shown, own)


def shortened_label(label: str) -> str:
    """A label with its middle left out if it is too long for a figure."""
    if len(label) <= _LONGEST:
        return label
    half = (_LONGEST - 3) // 2
    return f"{label[:half]} .. {label[-half:]}"
