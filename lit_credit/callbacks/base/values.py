"""The numbers of a measurement: gathering over chunks, reducing, and thinning out for loggers."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from statistics import fmean, median
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "MOST_HEADS",
    "MOST_LAYERS",
    "Gathered",
    "OverSamples",
    "as_numbers",
    "of_all_layers",
    "of_layers",
    "over_samples",
]


class Gathered:
    """Values per sample, by tag, gathered chunk by chunk.

    Example:
        >>> gathered = Gathered()
        >>> gathered.add("norm", torch.ones(2))
        >>> gathered.add("norm", torch.zeros(1))
        >>> gathered["norm"]
        tensor([1., 1., 0.])
    """

    def __init__(self) -> None:
        self._parts: dict[str, list[Tensor]] = {}

    def add(self, tag: str, values: Tensor) -> None:
        """Keep the (N, ...) values of a chunk's samples, without their graph."""
        self._parts.setdefault(tag, []).append(values.detach())

    def __getitem__(self, tag: str) -> Tensor:
        parts = self._parts[tag]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def __contains__(self, tag: str) -> bool:
        return tag in self._parts

    def __iter__(self) -> Iterator[str]:
        """The tags, in the order in which they first came."""
        return iter(self._parts)

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Every tag with the values of all samples."""
        return ((tag, self[tag]) for tag in self)


class OverSamples(NamedTuple):
    """Mean, sample standard deviation and minimum over the samples where there is a value."""

    mean: float
    sd: float
    min: float


def over_samples(values: Tensor) -> OverSamples:
    """Mean, spread and minimum of (N,) values over the samples whose value is not NaN.

    A cosine is undefined where a gradient vanishes; such a sample does not spoil the statistics of
    the others. All three are NaN if no sample is defined; the deviation of one sample is NaN.

    Args:
        values: (N,), NaN where undefined.

    Example:
        >>> import torch
        >>> over_samples(torch.tensor([0.5, float("nan"), 1.0])).mean
        0.75
    """
    defined = values[~values.isnan()].double()
    if not len(defined):
        return OverSamples(math.nan, math.nan, math.nan)
    sd = float(defined.std(correction=1)) if len(defined) > 1 else math.nan
    return OverSamples(float(defined.mean()), sd, float(defined.min()))


def as_numbers(who: str, values: Any) -> dict[str, float]:
    """The values that ``compute`` returned, with tensors and arrays of one number as numbers.

    Args:
        who: name of the diagnostic.
        values: the returned values by tag.

    Raises:
        TypeError: if ``values`` is not a mapping, or a value is not one real number.
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


MOST_HEADS = 64
"""Up to this number of heads, loggers get every number."""


MOST_LAYERS = 16
"""Up to this number of layers, loggers get every number."""


_HEAD = re.compile(r"(?P<layer>.+)/H\d\d+")


_REDUCE: dict[str, Callable[[list[float]], float]] = {
    "mean": fmean,
    "median": median,
    "max": max,
    "min": min,
}


def of_layers(tagged: Mapping[str, float], kinds: Sequence[str]) -> dict[str, float]:
    """Aggregate over the heads of each layer if a quantity has more than 64 heads in all.

    Args:
        tagged: values by ``<section>/<quantity>/<module>/H03``; other tags are kept.
        kinds: ``mean``, ``max``, ``min``, over the heads whose value is not NaN.

    Returns:
        Values by tag, with ``<section>/<quantity>/<module>/mean`` in place of heads.

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


_LAYER = re.compile(r"(?P<quantity>.+)/L\d\d+")


def of_all_layers(
    tagged: Mapping[str, float], kinds: Sequence[str] | None, most: int = MOST_LAYERS
) -> dict[str, float]:
    """Aggregate each quantity over its layers if there are many.

    Args:
        tagged: values by ``<section>/<quantity>/L03``; other tags are kept.
        kinds: ``min``, ``median``, ``max``, ``mean``, over the layers whose value is not NaN; an
            empty sequence leaves the layers out, None keeps them.
        most: largest number of layers that are kept.

    Returns:
        Values by tag, with ``<section>/<quantity>/<kind>`` in place of layers.

    Example:
        >>> of_all_layers({f"rank/weight/L{l:02d}": l for l in range(17)}, ["min", "median"])
        {'rank/weight/min': 0, 'rank/weight/median': 8}
    """
    layers: dict[str, list[float]] = {}
    for tag, value in tagged.items():
        if found := _LAYER.fullmatch(tag):
            layers.setdefault(found["quantity"], []).append(value)
    if kinds is None or max(map(len, layers.values()), default=0) <= most:
        return dict(tagged)
    logged: dict[str, float] = {}
    for tag, value in tagged.items():
        found = _LAYER.fullmatch(tag)
        if found is None:
            logged[tag] = value
        elif (values := layers.pop(found["quantity"], None)) is not None:
            known = [x for x in values if not math.isnan(x)]
            for kind in kinds:
                logged[f"{found['quantity']}/{kind}"] = _REDUCE[kind](known) if known else math.nan
    return logged
