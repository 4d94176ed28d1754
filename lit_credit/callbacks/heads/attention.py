"""Which attention a diagnostic looks at, and what it is called."""

from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_credit.functional import is_softmax
from lit_credit.inspect.attention.recording import AttentionCall
from lit_credit.inspect.attention.unseen import check_recorded
from lit_credit.protocols import LayerProtocol, asked
from lit_credit.utils.names import matched_units

__all__ = [
    "attention_by_label",
    "blocks_of",
    "head_tag",
    "seen_as_softmax",
    "softmax_or_nan",
    "without_sinks",
]

_MOST_ENTRIES = 2**22
"""Of A that are measured at once: 32 MB in float64, and several times that in between."""


def head_tag(index: int) -> str:
    """``H03`` for the fourth head."""
    return f"H{index:02d}"


def attention_by_label(
    module: LightningModule, calls: Sequence[AttentionCall], units: Sequence[str] | None
) -> dict[str, AttentionCall]:
    """The recorded attention that a diagnostic is about, by what it is called in tags.

    That is the name of the submodule, below ``net`` if all are. One with ``returns_attention`` goes
    by the name of the submodule that it is a part of, so that kinds of attention share their tags;
    the second call under one name has a number, ``attention-1``.

    Args:
        module: the module that ran.
        calls: what was recorded.
        units: names or glob patterns of the submodules to look at; None takes all.

    Raises:
        ValueError: if a pattern matches no submodule whose attention was seen, or one twice.
        MisconfigurationException: if none was seen.
    """
    check_recorded(module, calls)
    places = [_place(module, call.module) for call in calls]
    names = list(dict.fromkeys(places))
    below_net = all(name.startswith("net.") for name in names)
    found: dict[str, AttentionCall] = {}
    for name in names if units is None else matched_units(units, names):
        label = name.removeprefix("net.") if below_net else name
        own = [call for call, place in zip(calls, places, strict=True) if place == name]
        for index, call in enumerate(own):
            found[f"{label}-{index}" if index else label] = call
    return found


def _place(module: LightningModule, name: str) -> str:
    parent = name.rpartition(".")[0]
    if parent and asked(module.get_submodule(name), LayerProtocol.returns_attention, False):
        return parent
    return name or type(module).__name__


def blocks_of(attention: Tensor) -> list[slice]:
    """Samples of A (N, H, T, S) that are measured at once, so that float64 copies stay small."""
    rows = max(1, _MOST_ENTRIES // max(1, attention[:1].numel()))
    return [slice(start, start + rows) for start in range(0, len(attention), rows)]


def softmax_or_nan(attention: Tensor, allowed: Tensor | None) -> Tensor:
    """A (N, H, T, S), NaN throughout the heads of which a single row is no softmax.

    A row of another attention may sum to 1 by chance, and must not stand for its head; where the
    samples pass in chunks, :func:`seen_as_softmax` of each tells about the others.
    """
    heads = is_softmax(attention, allowed).all(0)
    return attention.detach().masked_fill(~heads[:, None, None].to(attention.device), torch.nan)


def seen_as_softmax(attention: Tensor) -> Tensor:
    """Which heads :func:`softmax_or_nan` has left, bool (1, H)."""
    return ~attention.isnan().flatten(2).any(-1).any(0, keepdim=True)


def without_sinks(attention: Tensor, length: int, sinks: set[int]) -> Tensor:
    """A (N, H, T, S) of the ``length`` keys that are positions, where all others are sinks.

    These stand behind the positions, or before them; A is returned as it is otherwise.

    Args:
        attention: A.
        length: how many keys are positions.
        sinks: keys that bring nothing of the input.
    """
    more = attention.shape[-1] - length
    if more > 0 and sinks >= set(range(length, length + more)):
        return attention[..., :length]
    if more > 0 and sinks >= set(range(more)):
        return attention[..., more:]
    return attention
