"""Torch's functions of attention, replaced for a while by twins that show their weights."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function

__all__ = ["Listener", "listened_to"]

# Legend: T queries, S keys, d features of a head, H heads.

_ATTENTION = F.scaled_dot_product_attention
_SOFTMAX = torch.softmax
_SOFTMAX_METHOD = Tensor.softmax


class Listener(Protocol):
    """Whoever is shown attention weights."""

    def hears(self, *, softmax: bool) -> bool:
        """Whether it wants what runs now: attention, or a softmax that may be one."""

    def record(
        self, weights: Tensor, allowed: Tensor | None, *qkv: Tensor, folded: bool = False
    ) -> Tensor:
        """Take A (..., T, S), the mask, query, key and value; return A to go on with."""


_listeners: list[Listener] = []


@contextmanager
def listened_to(listener: Listener) -> Iterator[None]:
    """Show ``listener`` the attention weights computed inside the ``with``."""
    with ExitStack() as undo:
        if not _listeners:
            undo.enter_context(_replaced_functions())
        _listeners.append(listener)
        undo.callback(_listeners.remove, listener)
        yield


@contextmanager
def _replaced_functions() -> Iterator[None]:
    """Put the twins everywhere that a module of Python holds the originals."""
    twins: dict[int, Any] = {id(_ATTENTION): _attention, id(_SOFTMAX): _softmax}
    places = [
        (vars(module), name, value)
        for module in list(sys.modules.values())
        if isinstance(module, ModuleType)
        and not twins.keys().isdisjoint(map(id, vars(module).values()))
        for name, value in list(vars(module).items())
        if id(value) in twins and module.__name__ != __name__
    ]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    stance = getattr(torch.compiler, "set_stance", nullcontext)
    try:
        for attributes, name, value in places:
            attributes[name] = twins[id(value)]
        Tensor.softmax = _softmax_method  # type: ignore[method-assign]
        torch.backends.mha.set_fastpath_enabled(False)
        with stance("force_eager"):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        del Tensor.softmax
        for attributes, name, value in places:
            attributes[name] = value


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``scaled_dot_product_attention``, step by step where someone listens."""
    inputs = (query, key, value, attn_mask)
    options: dict[str, Any] = {"scale": scale, "enable_gqa": enable_gqa}
    if has_torch_function(inputs):  # a mask may be an object of its own, as `CausalBias`
        return handle_torch_function(
            F.scaled_dot_product_attention, inputs, *inputs, dropout_p, is_causal, **options
        )
    listeners = [listener for listener in _listeners if listener.hears(softmax=False)]
    refused = is_causal and attn_mask is not None  # torch has the words for it
    if not listeners or refused or query.is_nested:
        return _ATTENTION(*inputs, dropout_p, is_causal, **options)
    keys, values = key, value
    if enable_gqa:
        keys, values = (
            x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value)
        )
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * scale) @ keys.transpose(-2, -1)  # (..., H, T, S)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    weights = _safe_softmax(_masked(scores, attn_mask))
    for listener in listeners:
        weights = listener.record(weights, _allowed(attn_mask), query, key, value)
    return F.dropout(weights, dropout_p).to(values.dtype) @ values


def _masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    # Half precision is for the products only, as in torch's kernels.
    scores = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    if mask is None:
        return scores
    return scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask


def _safe_softmax(scores: Tensor) -> Tensor:
    """Softmax, and 0 in rows of -inf only; a NaN there would spread in the backward pass."""
    empty = torch.isneginf(scores).all(-1, keepdim=True)
    return _SOFTMAX(scores.masked_fill(empty, 0.0), -1).masked_fill(empty, 0.0)


def _allowed(scores: Tensor | None) -> Tensor | None:
    """Where a mask, or scores that had one added, do not say -inf or about the lowest number."""
    if scores is None or scores.dtype == torch.bool:
        return scores
    allowed = scores > torch.finfo(scores.dtype).min / 2
    return None if allowed.all() else allowed


def _showing(softmax: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The softmax, shown where it runs over the last of three or more dimensions."""

    def shown(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        weights = softmax(input, *args, **kwargs)
        dim = kwargs.get("dim", args[0] if args else None)
        over_keys = input.dim() >= 3 and dim in (-1, input.dim() - 1)
        if not over_keys or not input.is_floating_point():
            return weights
        for listener in [listener for listener in _listeners if listener.hears(softmax=True)]:
            weights = listener.record(weights, _allowed(input.detach()), folded=True)
        return weights

    return shown


_softmax = _showing(_SOFTMAX)
_softmax_method = _showing(_SOFTMAX_METHOD)
