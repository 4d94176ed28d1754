"""Errors that name the diagnostic, and values that are numbers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lit_credit.inspect.finite import NonFiniteError

__all__ = ["as_numbers", "named"]

_NAMED = (MisconfigurationException, AttributeError, RuntimeError, TypeError, ValueError)


@contextmanager
def named(who: str) -> Iterator[None]:
    """Begin the text of an error with the name of the diagnostic, unless it says it already.

    Several diagnostics may have the same argument; the type of the error stays as it is.

    Args:
        who: name of the diagnostic.
    """
    try:
        yield
    except NonFiniteError:
        raise
    except _NAMED as error:
        if len(error.args) == 1 and isinstance(error.args[0], str) and who not in error.args[0]:
            error.args = (f"{who}: {error.args[0]}",)
        raise


def as_numbers(who: str, values: Any) -> dict[str, float]:
    """What ``compute`` has returned, with tensors and arrays of one number as numbers.

    Args:
        who: name of the diagnostic.
        values: by tag.

    Raises:
        TypeError: if it is no mapping, or a value is not one real number.
    """
    if not isinstance(values, Mapping):
        raise TypeError(
            f"`compute` of {who} returned {type(values).__name__}, expected a dict of tag and "
            "number, {} if there are none."
        )
    return {tag: _number(who, tag, value) for tag, value in values.items()}


def _number(who: str, tag: str, value: Any) -> float:
    if isinstance(value, int | float):
        return value
    item = value.detach() if isinstance(value, Tensor) else value
    if getattr(item, "size", None) is not None and hasattr(item, "item"):  # a tensor, or numpy's
        shape = tuple(item.shape)
        item = item.item() if all(side == 1 for side in shape) else item
    if isinstance(item, Real):
        return float(item)
    found = f"of shape {tuple(item.shape)}" if hasattr(item, "shape") else f"{item!r:.60}"
    raise TypeError(
        f"`compute` of {who} returned for {tag!r} a {type(value).__name__} {found}, expected one "
        "real number. Give each number a tag of its own."
    )
