"""Formatting numbers as text."""

import math

__all__ = ["number_text"]


def number_text(value: float, form: str = ".3g") -> str:
    """A number in the given format; NaN is n/a.

    Example:
        >>> number_text(0.12345), number_text(float("nan")), number_text(float("inf"))
        ('0.123', 'n/a', 'inf')
    """
    return "n/a" if math.isnan(value) else format(value, form)
