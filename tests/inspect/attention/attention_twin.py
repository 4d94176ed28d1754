"""Attention in the slow and obvious way, to compare with."""

import math
from contextlib import contextmanager

import torch
from torch.nn import functional as F


def slow_attention(q, k, v, mask=None, causal=False, scale=None, nudge=0.0):
    """One head and one query at a time; ``nudge`` is added to A (N, H, T, S)."""
    samples, heads, queries, keys = *q.shape[:3], k.shape[2]
    share = heads // k.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if mask is not None:
        bias = torch.where(mask, 0.0, -math.inf) if mask.dtype == torch.bool else mask
        bias = bias.to(q.dtype).expand(samples, heads, queries, keys)
    weights = torch.zeros(samples, heads, queries, keys, dtype=q.dtype)
    for n in range(samples):
        for h in range(heads):
            for t in range(queries):
                scores = torch.stack([scale * q[n, h, t].dot(x) for x in k[n, h // share]])
                if mask is not None:
                    scores = scores + bias[n, h, t]
                if causal:
                    scores = torch.where(torch.arange(keys) <= t, scores, -math.inf)
                weights[n, h, t] = scores.exp() / scores.exp().sum()
    context = torch.einsum("nhts,nhsd->nhtd", weights + nudge, v.repeat_interleave(share, 1))
    return context, weights


@contextmanager
def slow_functional(nudges):
    """Torch's function replaced by the slow one; the i-th call's A is moved by ``nudges[i]``.

    Yields the list of A.
    """
    original, seen = F.scaled_dot_product_attention, []

    def replacement(
        query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_
    ):
        assert dropout_p == 0
        nudge = nudges.get(len(seen), 0.0)
        context, weights = slow_attention(
            query, key, value, attn_mask, is_causal, scale, nudge=nudge
        )
        seen.append(weights)
        return context

    F.scaled_dot_product_attention = replacement
    try:
        yield seen
    finally:
        F.scaled_dot_product_attention = original


def slow_multihead(module, x, y, allowed=None, bias=None):
    """``nn.MultiheadAttention`` of queries x (N, T, E) on keys y (N, S, E), from its weights.

    Returns the output (N, T, E) and A (N, H, T, S), which is part of the graph.
    """
    size, heads = module.embed_dim, module.num_heads
    weight, offset = module.in_proj_weight, module.in_proj_bias
    parts = [slice(i * size, (i + 1) * size) for i in range(3)]
    q, k, v = (
        (z @ weight[part].T + offset[part]).unflatten(-1, (heads, -1)).transpose(1, 2)
        for part, z in zip(parts, (x, y, y), strict=True)
    )
    scores = q @ k.transpose(-1, -2) / math.sqrt(size // heads)
    if bias is not None:
        scores = scores + bias
    if allowed is not None:
        scores = torch.where(allowed, scores, torch.tensor(-math.inf, dtype=scores.dtype))
    exponentials = (scores - scores.detach().amax(-1, keepdim=True)).exp()
    weights = exponentials / exponentials.sum(-1, keepdim=True)
    context = (weights @ v).transpose(1, 2).flatten(2)
    return context @ module.out_proj.weight.T + module.out_proj.bias, weights
