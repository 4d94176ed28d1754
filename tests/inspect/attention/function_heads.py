"""Attention whose queries, keys or scores go through functions that no name tells of."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .head_nets import VOCAB, WIDTH, RotaryAttention
from .wrong_heads import (
    HEADS,
    SIZE,
    CosineAttention,
    FusedAttention,
    NormedByFunctionAttention,
    RotatedByFunctionAttention,
)


def turned(x, frequencies, layout="half", scale=1.0):
    """Rotated by position; features beyond the pairs stay."""
    count = len(frequencies)
    angle = torch.arange(x.shape[2], dtype=x.dtype)[:, None] * frequencies.to(x)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    y = x.clone()
    i, j = (
        (slice(count), slice(count, 2 * count))
        if layout == "half"
        else (slice(0, 2 * count, 2), slice(1, 2 * count, 2))
    )
    y[..., i], y[..., j] = x[..., i] * cos - x[..., j] * sin, x[..., i] * sin + x[..., j] * cos
    return y


class NeighboursTurnAttention(FusedAttention):
    """Pairs of neighbours turn, by frequencies of its own."""

    frequencies = torch.tensor([0.7, 0.05])

    def attend(self, q, k):
        q, k = (turned(x, self.frequencies, "interleaved") for x in (q, k))
        return super().attend(q, k)


class PartTurnsAttention(FusedAttention):
    """Half of the features turn."""

    def attend(self, q, k):
        q, k = (turned(x, torch.tensor([0.4])) for x in (q, k))
        return super().attend(q, k)


class TurnedBeforeKernelAttention(FusedAttention):
    """Turned by a function, then torch's kernel."""

    def forward(self, x):
        q, k, v = self.parts(x)
        q, k = (turned(y, torch.tensor([0.9, 0.2])) for y in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).flatten(2))


class GainedAttention(FusedAttention):
    """Normed by a function whose gains are parameters, then turned by usual frequencies."""

    def __init__(self):
        super().__init__()
        self.gain_q, self.gain_k = (nn.Parameter(torch.rand(SIZE) + 0.5) for _ in "qk")

    def attend(self, q, k):
        q, k = F.rms_norm(q, (SIZE,), self.gain_q), F.rms_norm(k, (SIZE,), self.gain_k)
        q, k = (turned(x, torch.tensor([1.0, 1e-2])) for x in (q, k))
        return super().attend(q, k)


class TemperatureAttention(CosineAttention):
    """Cosines times a learned temperature a head (Swin V2)."""

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.rand(HEADS, 1, 1) + 1)

    def attend(self, q, k):
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        return (q @ k.mT * self.temperature.exp()).softmax(-1)


class CentredAttention(FusedAttention):
    """Layer norms of all heads together."""

    def attend(self, q, k):
        q, k = (
            F.layer_norm(x.transpose(1, 2).flatten(2), (WIDTH,))
            .unflatten(-1, (HEADS, SIZE))
            .transpose(1, 2)
            for x in (q, k)
        )
        return super().attend(q, k)


class NormModulesAttention(FusedAttention):
    """Norms of queries and keys are submodules; one has a bias."""

    def __init__(self):
        super().__init__()
        self.q_norm, self.k_norm = nn.LayerNorm(SIZE), nn.LayerNorm(SIZE)

    def attend(self, q, k):
        return super().attend(self.q_norm(q), self.k_norm(k))


class SinkAttention(FusedAttention):
    """A learned logit a head that takes its share and brings nothing (GPT-OSS)."""

    first = False

    def __init__(self):
        super().__init__()
        self.sinks = nn.Parameter(torch.randn(HEADS))

    def attend(self, q, k):
        scores = q @ k.mT * self.scale
        sink = self.sinks[:, None, None].expand(*scores.shape[:-1], 1)
        if self.first:
            return torch.cat([sink, scores], -1).softmax(-1)[..., 1:]
        return torch.cat([scores, sink], -1).softmax(-1)[..., :-1]


class SinkBeforeAttention(SinkAttention):
    """The sink stands before the keys."""

    first = True


READ = [
    CosineAttention,
    NormedByFunctionAttention,
    RotatedByFunctionAttention,
    NeighboursTurnAttention,
    PartTurnsAttention,
    TurnedBeforeKernelAttention,
    GainedAttention,
    TemperatureAttention,
    CentredAttention,
    NormModulesAttention,
    SinkAttention,
    SinkBeforeAttention,
]
"""Proved by numbers."""


class NormedAfterTurningAttention(FusedAttention):
    """A gain that multiplies after the rotation, and so belongs to no weight."""

    def __init__(self):
        super().__init__()
        self.gain_q, self.gain_k = (nn.Parameter(torch.rand(SIZE) + 0.5) for _ in "qk")

    def attend(self, q, k):
        q, k = (turned(x, torch.tensor([0.9, 0.2])) for x in (q, k))
        q, k = F.rms_norm(q, (SIZE,), self.gain_q), F.rms_norm(k, (SIZE,), self.gain_k)
        return super().attend(q, k)


class OnlyQueriesNormedAttention(FusedAttention):
    def attend(self, q, k):
        return super().attend(F.rms_norm(q, (SIZE,)), k)


class UnevenlyTurnedAttention(FusedAttention):
    """Positions turn by their square."""

    def attend(self, q, k):
        place = torch.arange(q.shape[2], dtype=q.dtype)[:, None].square()
        angle = place * torch.tensor([0.3, 0.1]).to(q)

        def turn(x):
            a, b = x.chunk(2, -1)
            cos, sin = angle.cos(), angle.sin()
            return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)

        return super().attend(turn(q), turn(k))


class ContentSinkAttention(FusedAttention):
    """The last key is a position that every query sees, cut off after the softmax."""

    def attend(self, q, k):
        a = super().attend(q, torch.cat([k, k.mean(2, keepdim=True)], 2))
        return a[..., :-1] / a[..., :-1].sum(-1, keepdim=True) * q.square().mean(-1, keepdim=True)


REFUSED = [
    NormedAfterTurningAttention,
    OnlyQueriesNormedAttention,
    UnevenlyTurnedAttention,
    ContentSinkAttention,
]


class _Hook(nn.Module):
    """Hands on what it gets, as a place to hook."""

    def forward(self, x):
        return x


class LensAttention(nn.Module):
    """The layout of TransformerLens: a stack of matrices a projection, all in parameters."""

    def __init__(self, groups=None, rotary=None, n_heads=4, d_head=6):
        super().__init__()
        own = groups or n_heads
        draw = torch.randn
        self.W_Q = nn.Parameter(draw(n_heads, WIDTH, d_head) / 4)
        self.W_O = nn.Parameter(draw(n_heads, d_head, WIDTH) / 4)
        self.b_Q = nn.Parameter(draw(n_heads, d_head) / 4)
        self.b_O = nn.Parameter(draw(WIDTH) / 4)
        prefix = "_" if groups else ""
        for letter in "KV":
            setattr(self, f"{prefix}W_{letter}", nn.Parameter(draw(own, WIDTH, d_head) / 4))
            setattr(self, f"{prefix}b_{letter}", nn.Parameter(draw(own, d_head) / 4))
        self.attn_scale = 2.0  # not the root of d_head
        self.register_buffer("mask", torch.ones(16, 16, dtype=torch.bool).tril())
        self.register_buffer("IGNORE", torch.tensor(-math.inf))
        self.rotary = None
        if rotary:
            angle = torch.arange(16.0)[:, None] * torch.tensor([1.0, 0.1])
            repeated = torch.cat([angle] * 2, -1)
            angle = repeated if rotary == "half" else angle.repeat_interleave(2, -1)
            self.register_buffer("rotary_sin", angle.sin())
            self.register_buffer("rotary_cos", angle.cos())
            self.turns = rotary
        del self.rotary
        self.hook_q, self.hook_k, self.hook_v, self.hook_z = (_Hook() for _ in range(4))
        self.hook_attn_scores, self.hook_pattern = _Hook(), _Hook()

    def rotate(self, x):
        if not hasattr(self, "turns"):
            return x
        frequencies = torch.tensor([1.0, 0.1])
        return turned(x.transpose(1, 2), frequencies, self.turns).transpose(1, 2)

    def forward(self, query_input, key_input, value_input, attention_mask=None):
        make = "bpd,hdk->bphk"
        q = self.hook_q(torch.einsum(make, query_input, self.W_Q) + self.b_Q)
        k = self.hook_k(torch.einsum(make, key_input, self.W_K) + self.b_K)
        v = self.hook_v(torch.einsum(make, value_input, self.W_V) + self.b_V)
        q, k = self.rotate(q), self.rotate(k)
        scores = torch.einsum("bqhk,bshk->bhqs", q, k) / self.attn_scale
        count = scores.shape[-1]
        scores = torch.where(self.mask[:count, :count], scores, self.IGNORE)
        pattern = self.hook_pattern(F.softmax(self.hook_attn_scores(scores), dim=-1))
        z = self.hook_z(torch.einsum("bhqs,bshk->bqhk", pattern, v))
        return torch.einsum("bqhk,hkd->bqd", z, self.W_O) + self.b_O


class GroupedLensAttention(LensAttention):
    """Keys and values are shared; stacks for all heads are computed."""

    def __getattr__(self, name):
        if name in ("W_K", "W_V", "b_K", "b_V"):
            own = super().__getattr__(f"_{name}")
            return own.repeat_interleave(len(self.W_Q) // len(own), 0)
        return super().__getattr__(name)


class LensNorm(nn.Module):
    """Its LayerNorm, whose parameters are w and b."""

    def __init__(self):
        super().__init__()
        self.eps = 1e-5
        self.w, self.b = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x):
        x = x - x.mean(-1, keepdim=True)
        return x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt() * self.w + self.b


class LensLayerNorm(LensNorm):
    """By this name."""


class LensBlock(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.ln1 = LensLayerNorm()
        kind = GroupedLensAttention if options.get("groups") else LensAttention
        self.attn = kind(**options)
        self.hook_resid_pre, self.hook_attn_out = _Hook(), _Hook()

    def forward(self, resid_pre):
        x = self.hook_resid_pre(resid_pre)
        read = {f"{name}_input": self.ln1(x) for name in ("query", "key", "value")}
        return x + self.hook_attn_out(self.attn(**read, attention_mask=None))


class LensNet(nn.Module):
    """Embedding, blocks, norm, unembedding."""

    def __init__(self, **options):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.blocks = nn.ModuleList(LensBlock(**options) for _ in range(2))
        self.ln_final, self.unembed = LensLayerNorm(), nn.Linear(WIDTH, VOCAB)

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.unembed(self.ln_final(x))


def lens_net(**options):
    return LensNet(**options)


LENS = {
    "plain": {},
    "grouped": {"groups": 2},
    "rotary": {"rotary": "half"},
    "neighbours": {"rotary": "interleaved"},
}

__all__ = ["LENS", "READ", "REFUSED", "LensNet", "RotaryAttention", "lens_net"]
