"""The names that the class of a diagnostic declares."""

import re

__all__ = ["check_class_names"]

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
