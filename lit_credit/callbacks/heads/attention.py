"""Selecting and naming the attention that a diagnostic measures."""

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
"""Entries of A that are measured at once: 32 MB in float64, and several times that temporarily."""


def head_tag(index: int) -> str:
    """``H03`` for the fourth head."""
    return f"H{index:02d}"


def attention_by_label(
    module: LightningModule, calls: Sequence[AttentionCall], units: Sequence[str] | None
) -> dict[str, AttentionCall]:
    """The recorded attention that a diagnostic measures, by its label in tags.

    The label is the name of the submodule, without ``net.`` if all names begin with it. A submodule
    with ``returns_attention`` has the name of its parent as label, so that all kinds of attention
    share their tags. A second call of a submodule has a number: ``attention-1``.

    Args:
        module: the module that ran.
        calls: the recorded calls.
        units: names or glob patterns of the submodules to measure; None takes all.

    Raises:
        ValueError: if a pattern matches no submodule whose attention was seen, or a submodule is
            matched twice.
        MisconfigurationException: if no attention was seen.
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
    """Slices of the samples of A (N, H, T, S), so that float64 copies of a slice stay small."""
    rows = max(1, _MOST_ENTRIES // max(1, attention[:1].numel()))
    return [slice(start, start + rows) for start in range(0, len(attention), rows)]


def softmax_or_nan(attention: Tensor, allowed: Tensor | None) -> Tensor:
    """A (N, H, T, S), all NaN in every head that has a row which is not a softmax.

    In attention that is not a softmax, single rows may sum to 1 by chance; they must not represent
    their head. If the samples pass in chunks, combine :func:`seen_as_softmax` of all chunks.
    """
    heads = is_softmax(attention, allowed).all(0)
    return attention.detach().masked_fill(~heads[:, None, None].to(attention.device), torch.nan)


def seen_as_softmax(attention: Tensor) -> Tensor:
    """Which heads :func:`softmax_or_nan` has not set to NaN, bool (1, H)."""
    return ~attention.isnan().flatten(2).any(-1).any(0, keepdim=True)


def without_sinks(attention: Tensor, length: int, sinks: set[int]) -> Tensor:
    """Remove the sinks of A (N, H, T, S), leaving the ``length`` keys that are positions.

    The sinks must be all further keys, and lie behind the positions or before them. Otherwise A is
    returned unchanged.

    Args:
        attention: A.
        length: number of keys that are positions.
        sinks: keys that carry nothing of the input.
    """
    more = attention.shape[-1] - length
    if more > 0 and sinks >= set(range(length, length + more)):
        return attention[..., :length]
    if more > 0 and sinks >= set(range(more)):
        return attention[..., more:]
    return attention
