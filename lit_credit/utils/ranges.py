"""Numbers that arguments may have; NaN is in no range."""

import math
from collections.abc import Mapping

__all__ = ["check_parts", "check_range", "check_sizes"]

_MOST_FEATURES = 10**8
_MOST_PARTS = 10**5


def check_range(
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: float | None = None,
    below: float | None = None,
    **values: float | None,
) -> None:
    """Refuse arguments out of a range; NaN and inf are in none.

    Args:
        least: smallest value.
        most: largest value.
        above: a bound that values must exceed, in place of ``least``.
        below: a bound that values must not reach, in place of ``most``.
        **values: arguments by name; None, where it is allowed, is left alone.

    Raises:
        ValueError: naming the argument, its value and the range.

    Example:
        >>> check_range(1, width=8, depth=None)
        >>> check_range(0, 1, dropout=float("nan"))
        Traceback (most recent call last):
        ValueError: `dropout` is nan, expected a number from 0 to 1.
    """
    _check(values, least, most, above, below)


def check_sizes(least: int = 1, **values: float | None) -> None:
    """Refuse sizes of layers and tables that are too small, or so large that none can be meant.

    Raises:
        ValueError: naming the argument, its value and the bound.
    """
    _check(values, least)
    _check(values, most=_MOST_FEATURES)


def check_parts(least: int = 1, **values: float | None) -> None:
    """Refuse numbers of modules that are too small, or so large that none can be meant.

    Raises:
        ValueError: naming the argument, its value and the bound.
    """
    _check(values, least)
    _check(values, most=_MOST_PARTS)


def _check(
    values: Mapping[str, float | None],
    least: float = -math.inf,
    most: float = math.inf,
    above: float | None = None,
    below: float | None = None,
) -> None:
    for name, value in values.items():
        if value is None or (
            math.isfinite(value)
            and least <= value <= most
            and (above is None or value > above)
            and (below is None or value < below)
        ):
            continue
        raise ValueError(f"`{name}` is {value}, expected {_range(least, most, above, below)}.")


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
