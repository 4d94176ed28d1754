"""Recomputing an attention from its heads as read, and comparing it with the module's own."""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from operator import itemgetter
from typing import NamedTuple

import torch
from torch import Tensor

from lit_credit.inspect.attention.heads import AttentionHeads, Rope
from lit_credit.inspect.attention.recording import AttentionCall
from lit_credit.inspect.attention.runs import HeadRuns
from lit_credit.inspect.attention.score_norms import normalised

__all__ = ["Reproduction", "in_rows", "normed", "projected", "reproduce", "ways"]

# Legend: N samples, H heads, T queries, S keys, k features of a head, d of the stream.

_FAINTEST = 1e-20
"""Attention weights below this are left out, since they may be rounded to 0."""
_NEAR_ONE = 0.99


class Reproduction(NamedTuple):
    """Relative errors of an attention as read, compared with the module's own.

    Attributes:
        scores: error of the scores, up to a constant per row.
        apart_from_positions: error of the part of the scores that differs between samples, which a
            bias by position (T5, ALiBi, Swin) does not change; NaN if too little differs.
        spread: standard deviation of the scores over keys.
        mixed: error of A V, side by side for all heads; 0 if the module does not show it.
        written: error of the sum of A V W_O.
        transposed: whether the module has positions before samples.
    """

    scores: float
    apart_from_positions: float
    spread: float
    mixed: float
    written: float
    transposed: bool

    @property
    def output(self) -> float:
        """The larger error of the results after A: A V, and the output."""
        return max(self.mixed, self.written)


_FAILED = Reproduction(math.inf, math.inf, 0.0, math.inf, math.inf, False)


def reproduce(
    heads: AttentionHeads, runs: HeadRuns, calls: Sequence[AttentionCall]
) -> Reproduction:
    """Recompute the first run of an attention.

    Args:
        heads: the weights as read.
        runs: what the attention read and wrote.
        calls: the recorded attention; empty if it could not be seen, as in a fused kernel. Then A
            is the softmax of the recomputed scores, over all keys or causally masked.

    Returns:
        The errors of the best of all ways to interpret its inputs; infinite if no shapes fit.
    """
    if not runs.read or not runs.written:
        return _FAILED
    written = runs.written[0]
    dtype = torch.promote_types(written.dtype, torch.float32)
    best = _FAILED
    for (q, k, v), transposed in product(ways(runs.read[0]), (False, True)):
        streams = [in_rows(x, transposed).to(dtype) for x in (q, k, v)]
        target = in_rows(written, transposed).to(dtype)
        mixed = in_rows(runs.mixed[0], transposed).to(dtype) if runs.mixed else None
        for found in _compared(heads, streams, target, mixed, calls, transposed):
            if found.written + found.mixed < best.written + best.mixed or (
                found.written + found.mixed == best.written + best.mixed
                and found.scores < best.scores
            ):
                best = found
    return best


def ways(read: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The tensors that queries, keys and values may have been projected from."""
    if len(read) == 3:
        yield read[0], read[1], read[2]
    elif len(read) == 2:
        yield read[0], read[1], read[1]
        yield read[0], read[0], read[1]
    for x in read[:1]:
        yield x, x, x


def in_rows(x: Tensor, transposed: bool) -> Tensor:
    """Reshape (T, d), (N, T, d), (T, N, d), or more dimensions between N and d, to (N, T, d)."""
    x = x[None] if x.dim() == 2 else x
    return x.transpose(0, 1) if transposed else x.flatten(1, -2)


def _compared(
    heads: AttentionHeads,
    streams: Sequence[Tensor],
    target: Tensor,
    mixed: Tensor | None,
    calls: Sequence[AttentionCall],
    transposed: bool,
) -> Iterator[Reproduction]:
    eps = torch.finfo(heads.query.dtype).eps
    weights = [(w.to(streams[0]), b) for w, b in _weights(heads)]
    (q, k, v), output = (
        [projected(x, *w) for x, w in zip(streams, weights, strict=False)],
        heads.output.to(streams[0]),
    )
    if len({x.shape[0] for x in (q, k, v)}) > 1 or k.shape[2] != v.shape[2]:
        return
    q, k = normed(q, k, heads)
    if q.shape[2] != target.shape[1]:
        q = q[:, :, -target.shape[1] :]  # the output has the last positions alone
    scores = _rotated(q, heads.rope, k.shape[2] - q.shape[2]) @ _rotated(k, heads.rope, 0).mT
    scores = scores / math.sqrt(q.shape[-1])
    bias = 0.0 if heads.output_bias is None else heads.output_bias.to(target)
    seen = [call.weights.detach().to(scores) for call in calls[:1]]
    free = heads.score_norm is not None
    allowed = calls[0].allowed if calls else None
    for whole in seen or _unseen(scores):
        more = whole.shape[-1] - scores.shape[-1]
        # More keys than positions, before or behind them, may be sinks.
        for part in [slice(scores.shape[-1]), slice(more, None)] if more > 0 else [slice(None)]:
            a = whole[..., part]
            if a.shape != scores.shape:
                continue
            z = a @ v
            y = torch.einsum("nhtk,hdk->ntd", z, output)
            if y.shape != target.shape:
                continue
            side_by_side = z.transpose(1, 2).flatten(2)
            alike = mixed is None or mixed.shape != side_by_side.shape
            shown = None if allowed is None else allowed.expand(whole.shape)[..., part]
            yield Reproduction(
                *_score_errors(_fitted(scores, a) if free else scores, a, shown, eps),
                mixed=0.0 if alike or mixed is None else _relative(side_by_side, mixed, 0.0),
                written=_relative(y, target - bias, eps * float(target.square().mean().sqrt())),
                transposed=transposed,
            )


def normed(q: Tensor, k: Tensor, heads: AttentionHeads) -> tuple[Tensor, Tensor]:
    """Queries and keys (N, H, T, k) after the heads' score norm."""
    norm = heads.score_norm
    if norm is None:
        return q, k
    sides = (q, norm.query_gain, norm.query_shift), (k, norm.key_gain, norm.key_shift)
    made = []
    for x, gain, shift in sides:
        y = normalised(x, norm)
        y = y if gain is None else y * gain.to(y)[:, None]
        made.append(y if shift is None else y + shift.to(y)[:, None])
    return made[0], made[1]


def _fitted(scores: Tensor, a: Tensor) -> Tensor:
    """The scores times a fitted temperature per head: no weight tells it if scores are normed."""
    visible = a > _FAINTEST
    ours, theirs = (_centred(x, visible) for x in (scores, a.log()))
    over = (0, 2, 3)
    factor = (ours * theirs).sum(over) / ours.square().sum(over).clamp(min=1e-30)
    return scores * factor.clamp(min=0)[:, None, None]


def _weights(heads: AttentionHeads) -> Iterator[tuple[Tensor, Tensor | None]]:
    yield heads.query, heads.query_bias
    yield heads.key, heads.key_bias
    yield heads.value, heads.value_bias


def projected(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Project a stream (N, T, d) to the features of all heads, (N, H, T, k)."""
    y = torch.einsum("ntd,hdk->nhtk", x, weight)
    return y if bias is None else y + bias.to(y)[:, None]


def _unseen(scores: Tensor) -> Iterator[Tensor]:
    yield scores.softmax(-1)
    if scores.shape[-1] == scores.shape[-2]:
        later = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1)
        yield scores.masked_fill(later, -math.inf).softmax(-1)


def _rotated(x: Tensor, rope: Rope | None, first: int) -> Tensor:
    """Turn features by position; the positions count from ``first``."""
    if rope is None:
        return x
    i, j = (place.to(x.device) for place in rope.pairs)
    position = torch.arange(first, first + x.shape[2], device=x.device)
    angle = position[:, None] * rope.frequencies.to(x)
    cos, sin = rope.scale * angle.cos(), rope.scale * angle.sin()
    turned = x.clone()
    turned[..., i] = x[..., i] * cos - x[..., j] * sin
    turned[..., j] = x[..., i] * sin + x[..., j] * cos
    return turned


def _score_errors(
    scores: Tensor, a: Tensor, allowed: Tensor | None, eps: float
) -> tuple[float, float, float]:
    """Error of the scores, error of the part that differs between samples, and spread over keys."""
    visible = a > _FAINTEST
    if allowed is not None:
        visible &= allowed.expand(a.shape)
    best = math.inf, math.inf, 0.0
    # A may be a softmax, or a sigmoid, which hides the scores by rounding near 1.
    for theirs, shown in ((a.log(), visible), (a.logit(), visible & (a < _NEAR_ONE))):
        ours, own = _centred(scores, shown), _centred(theirs, shown)
        count = shown.sum().clamp(min=1)
        largest = max(float(x.masked_fill(~shown, 0.0).abs().amax()) for x in (scores, own))
        noise = 10 * eps * (1.0 + largest) + 1e-5  # the error of a logarithm in float32
        common = shown.all(0, keepdim=True).expand(shown.shape)
        varied = [_centred(x, common) for x in (scores, theirs)]
        varied = [x - x.mean(0, keepdim=True) for x in varied]
        apart = math.nan
        if varied[0].norm() > 10 * noise * math.sqrt(varied[0].numel()):
            apart = _relative(varied[0], varied[1], noise)
        spread = float((ours.square().sum() / count).sqrt())
        best = min(best, (_relative(ours, own, noise), apart, spread), key=itemgetter(0))
    return best


def _centred(x: Tensor, visible: Tensor) -> Tensor:
    """``x`` minus its mean over the visible keys; 0 at the other keys."""
    x = x.masked_fill(~visible, 0.0)
    mean = x.sum(-1, keepdim=True) / visible.sum(-1, keepdim=True).clamp(min=1)
    return (x - mean).masked_fill(~visible, 0.0)


def _relative(ours: Tensor, theirs: Tensor, noise: float) -> float:
    """Norm of the difference, relative to the larger norm plus rounding of size ``noise``."""
    size = float(torch.maximum(ours.norm(), theirs.norm())) + noise * math.sqrt(ours.numel())
    return float((ours - theirs).norm()) / size if size > 0 else 0.0
