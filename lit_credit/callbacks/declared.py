"""What the class of a diagnostic declares: its names, and the arguments that it makes use of."""

import re
from typing import Any

__all__ = ["check_class_names", "refuse_unused"]

_EXAMPLES = {
    "name": "the stem of its files, such as 'weight_sum' for weight_sum.jsonl",
    "section": "the first part of its tags, such as 'weight' for weight/sum",
}


def check_class_names(kind: type) -> None:
    """Refuse a diagnostic without ``name`` and ``section``, when its class is made.

    Raises:
        TypeError: if one is missing, or anything but letters, digits, ``_``, ``-`` and ``.``.
    """
    for attribute, example in _EXAMPLES.items():
        value = getattr(kind, attribute, None)
        if not isinstance(value, str) or not re.fullmatch(r"\w[\w.-]*", value):
            found = "is missing" if value is None else f"is {value!r}"
            raise TypeError(
                f"class {kind.__name__}: `{attribute}` {found}, expected a class attribute of "
                f"letters, digits and `_`: {example}."
            )


def refuse_unused(kind: type, **arguments: tuple[Any, bool]) -> None:
    """Refuse arguments that are given to a diagnostic which makes no use of them.

    Args:
        kind: class of the diagnostic.
        **arguments: by name the value, None if it is not given, and whether the class uses it.

    Raises:
        ValueError: if one is given and not used.
    """
    for argument, (value, is_used) in arguments.items():
        if value is not None and not is_used:
            raise ValueError(
                f"`{argument}` has no meaning for {kind.__name__}, which makes no use of it. "
                "Leave it out."
            )
