"""Summarising a measurement of ``SoftmaxJacobian`` in words."""

import math
import statistics
from collections.abc import Sequence

from lit_credit.runs.history import Row

__all__ = ["by_head", "softmax_reading"]

Heads = dict[tuple[str, str], dict[str, float]]
"""``(module, head)`` to quantity to number."""

# A lateral part with less than this share of the energy is called small.
_SMALL = 0.1


def by_head(row: Row, section: str) -> Heads:
    """Sort the values of a row by module and head.

    Args:
        row: row of a history with tags ``<section>/<quantity>/<module>/<head>``.
        section: first part of the tags.

    Example:
        >>> by_head({"step": 0, "values": {"jacobian/r_off/attention/H00": 0.5}}, "jacobian")
        {('attention', 'H00'): {'r_off': 0.5}}
        >>> by_head({"step": 0, "values": {"jacobian/r_off/en/de/H00": 0.5}}, "jacobian")
        {('en/de', 'H00'): {'r_off': 0.5}}
    """
    heads: Heads = {}
    for tag, value in row["values"].items():
        # The name of a module may contain a slash, as a key of a ModuleDict.
        quantity, _, place = tag.removeprefix(f"{section}/").partition("/")
        label, _, head = place.rpartition("/")
        heads.setdefault((label, head), {})[quantity] = value
    return heads


def softmax_reading(row: Row, section: str) -> str:
    """Two sentences on the ranges over heads, and on how many heads are of which kind.

    Args:
        row: row of the history of :class:`lit_credit.callbacks.SoftmaxJacobian`.
        section: first part of its tags.
    """
    every = list(by_head(row, section).values())
    heads = [head for head in every if math.isfinite(head["r_diag"])]
    if not heads:
        return (
            f"At step {row['step']} the softmax Jacobian is undefined in all {len(every)} heads. "
            "Their attention is no softmax, or no credit reaches it."
        )
    return f"{_on_energy(row['step'], heads, len(every))} {_on_direction(heads)}"


def _on_energy(step: int, heads: Sequence[dict[str, float]], count: int) -> str:
    small = sum(head["r_off"] < _SMALL for head in heads)
    more = count - len(heads)
    undefined = f" ({more} more {'is' if more == 1 else 'are'} undefined)" if more else ""
    return (
        f"At step {step}, over {len(heads)} heads{undefined}, the energy of the softmax backward's "
        f"diagonal part is {_range(heads, 'r_diag')} times that of the whole, and of its lateral "
        f"sum {_range(heads, 'r_off')} times, less than {_SMALL:g} in {small} of them."
    )


def _on_direction(heads: Sequence[dict[str, float]]) -> str:
    closer = sum(head["cosine_diag"] > head["cosine_ste"] for head in heads)
    text = (
        f"Without the lateral sum the gradient at the scores keeps a cosine of "
        f"{_range(heads, 'cosine_diag')} with the full one, without any softmax backward "
        f"(straight-through) {_range(heads, 'cosine_ste')}, so that the diagonal is the closer one "
        f"in {closer} of {len(heads)} heads"
    )
    if "exact_cosine_diag" in heads[0]:
        text += f"; under the exact gradient the diagonal has {_range(heads, 'exact_cosine_diag')}"
    return f"{text}."


def _range(heads: Sequence[dict[str, float]], quantity: str) -> str:
    values = [head[quantity] for head in heads if math.isfinite(head[quantity])]
    if not values:
        return "n/a"
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{low:.3g} to {high:.3g} (median {middle:.3g})"
