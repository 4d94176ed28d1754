"""Replacing torch's attention functions, for a while, by twins that show their weights."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function

from lit_credit.utils.compiled import eager
from lit_credit.utils.shared import Shared

__all__ = ["Listener", "listened_to"]

# Legend: T queries, S keys, d features of a head, H heads.

_ATTENTION = F.scaled_dot_product_attention
_SOFTMAX = torch.softmax


class Listener(Protocol):
    """An object that is shown attention weights."""

    def listens(self) -> bool:
        """Whether it listens to the calling thread."""

    def hears(self, *, softmax: bool) -> bool:
        """Whether it wants the function that runs now: attention, or a softmax that may be one."""

    def record(
        self, weights: Tensor, allowed: Tensor | None, *qkv: Tensor, folded: bool = False
    ) -> Tensor:
        """Take A (..., T, S), the mask, query, key and value; return A to go on with."""


_listeners: list[Listener] = []


@contextmanager
def listened_to(listener: Listener) -> Iterator[None]:
    """Show ``listener`` the attention weights computed inside the ``with``.

    The functions are replaced in all threads, from the first ``with`` until the last one is left in
    any thread. When no listener hears (:meth:`Listener.hears`), torch's own functions run. Patches
    by other libraries, made before or meanwhile, stay.
    """
    with _replaced, eager():
        _listeners.append(listener)
        try:
            yield
        finally:
            _listeners.remove(listener)


@contextmanager
def _replaced_functions() -> Iterator[None]:
    """Put the twins wherever a Python module holds the originals."""
    pairs: dict[int, tuple[Any, Any]] = {}
    for original, twin in (
        (_ATTENTION, _attention),
        (_SOFTMAX, _softmax),
        (torch.backends.mha.get_fastpath_enabled, _fast_path(torch.backends.mha)),
    ):
        # Twins are replaced too: another library may have kept one when it made its own patch.
        pairs[id(original)] = pairs[id(twin)] = original, twin
    places = [
        (vars(module), name, *pairs[id(value)])
        for module in list(sys.modules.values())
        if isinstance(module, ModuleType)
        and not pairs.keys().isdisjoint(map(id, list(vars(module).values())))
        for name, value in list(vars(module).items())
        if id(value) in pairs and module.__name__ != __name__
    ]
    own = vars(Tensor).get("softmax")  # None: torch defines it in a base class
    method = _showing(Tensor.softmax)
    with ExitStack() as undo:
        for attributes, name, original, twin in places:
            attributes[name] = twin
            undo.callback(_restore, attributes, name, twin, original)
        Tensor.softmax = method  # type: ignore[method-assign]
        undo.callback(_restore_softmax, method, own)
        yield


_replaced = Shared(_replaced_functions)


def _restore(attributes: dict[str, Any], name: str, twin: Any, original: Any) -> None:
    if attributes.get(name) is twin:  # otherwise another library has patched it
        attributes[name] = original


def _restore_softmax(method: Any, own: Any) -> None:
    if vars(Tensor).get("softmax") is not method:
        return
    if own is None:
        del Tensor.softmax
    else:
        Tensor.softmax = own  # type: ignore[method-assign]


def _fast_path(backend: Any) -> Callable[[], bool]:
    """The switch of the fused inference path of torch's encoders, off while somebody listens."""
    switched: Callable[[], bool] = backend.get_fastpath_enabled

    def enabled() -> bool:
        return switched() and not any(listener.listens() for listener in list(_listeners))

    return enabled


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
    """``scaled_dot_product_attention``, computed step by step if a listener hears."""
    inputs = (query, key, value, attn_mask)
    options: dict[str, Any] = {"scale": scale, "enable_gqa": enable_gqa}
    if has_torch_function(inputs):  # a mask may be an object such as `CausalBias`
        return handle_torch_function(
            F.scaled_dot_product_attention, inputs, *inputs, dropout_p, is_causal, **options
        )
    listeners = [one for one in list(_listeners) if one.hears(softmax=False)]
    refused = is_causal and attn_mask is not None  # torch raises the error
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
    """Softmax, but 0 in rows that are all -inf: a NaN there would spread in the backward pass."""
    empty = torch.isneginf(scores).all(-1, keepdim=True)
    return _SOFTMAX(scores.masked_fill(empty, 0.0), -1).masked_fill(empty, 0.0)


def _allowed(scores: Tensor | None) -> Tensor | None:
    """Where a mask, or scores with a mask added, are neither -inf nor about the lowest number."""
    if scores is None or scores.dtype == torch.bool:
        return scores
    allowed = scores > torch.finfo(scores.dtype).min / 2
    return None if allowed.all() else allowed


def _showing(softmax: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A softmax that is shown if it runs over the last of three or more dimensions."""

    def shown(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        weights = softmax(input, *args, **kwargs)
        dim = kwargs.get("dim", args[0] if args else None)
        over_keys = input.dim() >= 3 and dim in (-1, input.dim() - 1)
        if not over_keys or not input.is_floating_point():
            return weights
        for listener in [one for one in list(_listeners) if one.hears(softmax=True)]:
            weights = listener.record(weights, _allowed(input.detach()), folded=True)
        return weights

    return shown


_softmax = _showing(_SOFTMAX)
