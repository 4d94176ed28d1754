"""Recognising the norms of queries and keys by what they do to random numbers."""

import re
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_credit.inspect.attention.heads import AttentionHeads, ScoreNorm
from lit_credit.inspect.attention.norm_forms import norm_epsilon
from lit_credit.inspect.state.guard import isolated

__all__ = ["find_score_norm", "normalised", "per_head"]

_NAMES = re.compile(
    r"(q|k|qk|query|key)_?((layer|rms)_?)?(norm|ln)|((layer|rms)_?)?(norm|ln)_?(q|k|qk|query|key)",
    re.IGNORECASE,
)
_QUERY, _KEY = (re.compile(f"(^|_)({word})", re.IGNORECASE) for word in ("q", "k"))
_CLOSE = 1e-3


class _Form(NamedTuple):
    centred: bool
    gain: Tensor
    shift: Tensor | None


def find_score_norm(attention: nn.Module, heads: AttentionHeads) -> ScoreNorm | None:
    """Find how submodules such as ``q_norm`` norm queries and keys; None if there are none.

    Args:
        attention: the attention.
        heads: its weights.

    Raises:
        ValueError: if a submodule does not divide by a size and multiply by a gain, or queries and
            keys are not both normed in the same way.
    """
    found = {
        name: child
        for name, child in attention.named_children()
        if _NAMES.fullmatch(name) and not isinstance(child, nn.Identity)
    }
    if not found:
        return None
    count, _, size = heads.query.shape
    # Names begin with q or k, or end with it; `qk_norm` is both.
    words = {name: name.lower().replace("layer", "").replace("rms", "") for name in found}
    words = {n: w.replace("norm", "").replace("ln", "").strip("_") for n, w in words.items()}
    sides = []
    for side in ("q", "k"):
        name = next((n for n, word in words.items() if word.startswith(side) or word == "qk"), "")
        if not name:
            raise ValueError(f"`{next(iter(found))}` norms its queries or keys and not both")
        form = _form(found[name], size)
        if form is None:
            raise ValueError(f"`{name}` does to its queries or keys what no known norm does")
        sides.append((name, form))
    (query_name, query), (key_name, key) = sides
    widths = [max(size, form.gain.numel()) for form in (query, key)]
    joint = query.gain.ndim == 1 and widths[0] == count * size > size
    if query.centred != key.centred:
        raise ValueError(f"`{query_name}` and `{key_name}` are norms of two kinds")
    return ScoreNorm(
        query.centred,
        joint,
        per_head(query.gain, count, size),
        per_head(key.gain, count, size),
        None if query.shift is None else per_head(query.shift, count, size),
        None if key.shift is None else per_head(key.shift, count, size),
        norm_epsilon(found[query_name]),
    )


def per_head(x: Tensor, count: int, size: int) -> Tensor:
    """Expand a vector to (H, d_head) if it serves all heads, each head, or each shared head.

    Raises:
        ValueError: if the vector has another size.
    """
    if x.numel() % size or x.numel() > count * size or count % (x.numel() // size):
        raise ValueError(f"a gain of {x.numel()} does not fit {count} heads of {size} features")
    own = x.detach().reshape(-1, size)
    return own.repeat_interleave(count // len(own), 0)


def normalised(x: Tensor, norm: ScoreNorm) -> Tensor:
    """Queries or keys (N, H, T, d_head), each divided by its root mean square."""
    over = (1, 3) if norm.joint else (3,)
    x = x - x.mean(over, keepdim=True) if norm.centred else x
    size = (x.square().mean(over, keepdim=True) + norm.epsilon).sqrt()
    return x / size.clamp(min=torch.finfo(x.dtype).tiny)


def _form(norm: nn.Module, size: int) -> _Form | None:
    """Fit c (x - mean) / size * gain + shift to a norm's output on random numbers."""
    own = dict(norm.named_parameters(recurse=False))
    vectors = [p.detach() for p in own.values()]
    shape = vectors[0].shape if vectors else torch.Size([size])
    if not shape or len(vectors) > 2 or any(v.shape != shape for v in vectors):
        return None
    device = vectors[0].device if vectors else torch.device("cpu")
    generator = torch.Generator().manual_seed(0)
    x = (3 * torch.randn(2, 4, *shape, generator=generator) + 1).to(device)
    y, bare = _run(norm, x), _run(norm, torch.zeros_like(x))
    if y is None or bare is None or y.shape != x.shape:
        return None
    shift = bare[0, 0] if float(bare.abs().max()) > 0 else None
    y = y if shift is None else y - shift
    gains: list[Callable[[Tensor], Tensor]] = [lambda v: v, lambda v: v + 1]
    for centred in (False, True):
        z = x - x.mean(-1, keepdim=True) if centred else x
        z = z / z.square().mean(-1, keepdim=True).sqrt()
        for gain in [g(v.to(x)) for v in vectors for g in gains] or [x.new_ones(shape)]:
            made = z * gain
            factor = (made * y).sum() / made.square().sum().clamp(min=1e-30)
            if (factor * made - y).norm() <= _CLOSE * y.norm():
                return _Form(centred, factor * gain, shift)
    return None


def _run(norm: nn.Module, x: Tensor) -> Tensor | None:
    with torch.no_grad(), isolated(norm):
        try:
            y = norm.forward(x)
        except Exception:  # it takes other arguments
            return None
    return y.float() if isinstance(y, Tensor) else None
