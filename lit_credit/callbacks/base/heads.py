"""What loggers get of a measurement of very many heads."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

__all__ = ["MOST_HEADS", "of_layers"]

MOST_HEADS = 64
"""Of so many heads loggers get every number."""

_HEAD = re.compile(r"(?P<layer>.+)/H\d\d+")
_REDUCE: dict[str, Callable[[list[float]], float]] = {"mean": fmean, "max": max, "min": min}


def of_layers(tagged: Mapping[str, float], kinds: Sequence[str]) -> dict[str, float]:
    """Aggregates over the heads of each layer, where a quantity has more than 64 heads in all.

    Args:
        tagged: values by ``<section>/<quantity>/<module>/H03`` and other tags, which stay.
        kinds: ``mean``, ``max``, ``min``, over the heads whose value is not NaN.

    Returns:
        In place of heads ``<section>/<quantity>/<module>/mean``.

    Example:
        >>> of_layers({f"jacobian/r_off/attn/H{h:02d}": h for h in range(65)}, ["mean", "max"])
        {'jacobian/r_off/attn/mean': 32.0, 'jacobian/r_off/attn/max': 64}
    """
    layers: dict[str, list[float]] = {}
    counts: dict[tuple[str, ...], int] = {}
    for tag, value in tagged.items():
        if found := _HEAD.fullmatch(tag):
            layers.setdefault(found["layer"], []).append(value)
            quantity = tuple(tag.split("/")[:2])
            counts[quantity] = counts.get(quantity, 0) + 1
    if max(counts.values(), default=0) <= MOST_HEADS:
        return dict(tagged)
    logged: dict[str, float] = {}
    for tag, value in tagged.items():
        found = _HEAD.fullmatch(tag)
        if found is None:
            logged[tag] = value
        elif (values := layers.pop(found["layer"], None)) is not None:
            known = [x for x in values if not math.isnan(x)]
            for kind in kinds:
                logged[f"{found['layer']}/{kind}"] = _REDUCE[kind](known) if known else math.nan
    return logged
