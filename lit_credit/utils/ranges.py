"""Checking arguments; errors name the argument, its value, what was expected and the remedy.

NaN is outside every range.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

__all__ = ["check_choice", "check_parts", "check_range", "check_sizes"]

_MOST_FEATURES = 10**8
_MOST_PARTS = 10**5

Number = float | Sequence[float] | None
"""A number, a sequence whose numbers are all checked, or None, which is not checked."""


def check_range(
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: float | None = None,
    below: float | None = None,
    finite: bool = True,
    remedy: str = "",
    **values: Number,
) -> None:
    """Refuse arguments outside a range.

    Args:
        least: smallest value.
        most: largest value.
        above: a bound that values must exceed, in place of ``least``.
        below: a bound that values must not reach, in place of ``most``.
        finite: also refuse inf, even if there is no largest value.
        remedy: a sentence that is added to the error.
        **values: arguments by name; None is not checked.

    Raises:
        ValueError: naming the argument, its value and the range.

    Example:
        >>> check_range(1, width=8, depth=None)
        >>> check_range(0, 1, dropout=float("nan"))
        Traceback (most recent call last):
        ValueError: `dropout` is nan, expected a number from 0 to 1.
        >>> check_range(1, ranks=[5, 0])
        Traceback (most recent call last):
        ValueError: `ranks[1]` is 0, expected at least 1.
    """
    _check(values, least, most, above, below, finite, remedy)


def check_sizes(least: int = 1, **values: Number) -> None:
    """Refuse sizes of layers and tables that are too small, or too large to be meant.

    Raises:
        ValueError: naming the argument, its value and the bound.
    """
    _check(values, least)
    _check(values, most=_MOST_FEATURES)


def check_parts(least: int = 1, **values: Number) -> None:
    """Refuse numbers of modules that are too small, or too large to be meant.

    Raises:
        ValueError: naming the argument, its value and the bound.
    """
    _check(values, least)
    _check(values, most=_MOST_PARTS)


def check_choice(choices: Sequence[str], **values: str) -> None:
    """Refuse arguments that are not among the allowed words.

    Args:
        choices: the allowed words, at least two.
        **values: arguments by name.

    Raises:
        ValueError: naming the argument, its value and the words.

    Example:
        >>> check_choice(["raise", "warn", "skip"], policy="stop")
        Traceback (most recent call last):
        ValueError: `policy` is 'stop', expected 'raise', 'warn' or 'skip'.
    """
    *most, last = map(repr, choices)
    for name, value in values.items():
        if value not in choices:
            _refuse(name, repr(value), f"{', '.join(most)} or {last}")


def _check(
    values: Mapping[str, Number],
    least: float = -math.inf,
    most: float = math.inf,
    above: float | None = None,
    below: float | None = None,
    finite: bool = True,
    remedy: str = "",
) -> None:
    for name, value in _each(values):
        if not (
            (math.isfinite(value) if finite else not math.isnan(value))
            and least <= value <= most
            and (above is None or value > above)
            and (below is None or value < below)
        ):
            _refuse(name, value, _range(least, most, above, below), remedy)


def _each(values: Mapping[str, Number]) -> Iterator[tuple[str, float]]:
    """The single numbers, by names such as ``width`` and ``hidden[0]``."""
    for name, value in values.items():
        if isinstance(value, Sequence):
            yield from ((f"{name}[{index}]", one) for index, one in enumerate(value))
        elif value is not None:
            yield name, value


def _refuse(name: str, value: object, expected: str, remedy: str = "") -> None:
    raise ValueError(f"`{name}` is {value}, expected {expected}." + (remedy and f" {remedy}"))


def _range(least: float, most: float, above: float | None, below: float | None) -> str:
    low = f"above {above}" if above is not None else "" if least == -math.inf else f"{least}"
    high = f"below {below}" if below is not None else "" if most == math.inf else f"{most}"
    if not low and not high:
        return "a finite number"
    if above is None and below is None:
        if low and high:
            return f"a number from {low} to {high}"
        return f"at least {low}" if low else f"at most {high}"
    low = low if above is not None or not low else f"at least {low}"
    high = high if below is not None or not high else f"at most {high}"
    return "a number " + " and ".join(filter(None, (low, high)))
