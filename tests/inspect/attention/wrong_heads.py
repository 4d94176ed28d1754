"""Attention that has the names and shapes of a known one, and does something else."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from . import head_nets
from .head_nets import WIDTH

HEADS, SIZE = 4, WIDTH // 4


class FusedAttention(head_nets.FusedAttention):
    """timm's names; ``parts`` makes (N, H, T, k) of the fused projection, ``mix`` the rest."""

    def __init__(self):
        super().__init__(("qkv", "proj"))
        self.scale = SIZE**-0.5

    def parts(self, x):
        return (y.unflatten(-1, (HEADS, SIZE)).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))

    def attend(self, q, k):
        return (q @ k.mT * self.scale).softmax(-1)

    def forward(self, x):
        q, k, v = self.parts(x)
        return self.proj((self.attend(q, k) @ v).transpose(1, 2).flatten(2))


class KeysFirstAttention(FusedAttention):
    """Rows of the fused projection are k, q, v."""

    def parts(self, x):
        k, q, v = super().parts(x)
        return q, k, v


class ValuesFirstAttention(FusedAttention):
    """Rows of the fused projection are v, q, k."""

    def parts(self, x):
        v, q, k = super().parts(x)
        return q, k, v


class HeadByHeadAttention(FusedAttention):
    """Megatron, GPT-NeoX, timm's MaxViT: q, k and v of one head beside each other."""

    def parts(self, x):
        return self.qkv(x).unflatten(-1, (HEADS, 3 * SIZE)).transpose(1, 2).chunk(3, -1)


class FeaturesApartAttention(FusedAttention):
    """A head is every fourth feature."""

    def parts(self, x):
        return (y.unflatten(-1, (SIZE, HEADS)).movedim(-1, 1) for y in self.qkv(x).chunk(3, -1))


class TalkingBeforeAttention(FusedAttention):
    """Scores of heads mix (CaiT)."""

    def __init__(self):
        super().__init__()
        self.talk = nn.Parameter(torch.randn(HEADS, HEADS))

    def attend(self, q, k):
        scores = q @ k.mT * self.scale
        return torch.einsum("gh,nhts->ngts", self.talk, scores).softmax(-1)


class TalkingAfterAttention(TalkingBeforeAttention):
    """Attention weights of heads mix."""

    def attend(self, q, k):
        return torch.einsum("gh,nhts->ngts", self.talk, FusedAttention.attend(self, q, k))


class OfChannelsAttention(FusedAttention):
    """XCiT: features attend to features."""

    def forward(self, x):
        q, k, v = (y.mT for y in self.parts(x))
        a = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT).softmax(-1)
        return self.proj((a @ v).mT.transpose(1, 2).flatten(2))


class CosineAttention(FusedAttention):
    """SwinV2."""

    def attend(self, q, k):
        return (10 * F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT).softmax(-1)


class NormedByFunctionAttention(FusedAttention):
    """Queries and keys are normed, by no module."""

    def attend(self, q, k):
        return super().attend(F.rms_norm(q, (SIZE,)), F.rms_norm(k, (SIZE,)))


class RotatedByFunctionAttention(FusedAttention):
    """Queries and keys turn by position."""

    def attend(self, q, k):
        angle = torch.arange(q.shape[2], dtype=q.dtype)[:, None] * torch.tensor([1.0, 0.3]).to(q)

        def turn(x):
            a, b = x.chunk(2, -1)
            return torch.cat(
                [a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1
            )

        return super().attend(turn(q), turn(k))


class CappedAttention(FusedAttention):
    """Gemma 2: scores stay below 50."""

    def attend(self, q, k):
        return (50 * (q @ k.mT * self.scale / 50).tanh()).softmax(-1)


class OtherScaleAttention(FusedAttention):
    """Scores are divided by the size of a head."""

    def attend(self, q, k):
        return (q @ k.mT / SIZE).softmax(-1)


class LinearAttention(FusedAttention):
    """Attention without a softmax over keys."""

    def forward(self, x):
        q, k, v = self.parts(x)
        q, k = q.softmax(-1), k.softmax(-2)
        return self.proj((q @ (k.mT @ v)).transpose(1, 2).flatten(2))


class GatedAttention(FusedAttention):
    """What heads mix is gated before the output."""

    def forward(self, x):
        q, k, v = self.parts(x)
        z = (self.attend(q, k) @ v).transpose(1, 2).flatten(2)
        return self.proj(z * x.sigmoid())


class ScaledByContentAttention(FusedAttention):
    """The temperature depends on the query."""

    def attend(self, q, k):
        return (q @ k.mT * (1 + q.square().mean(-1, keepdim=True))).softmax(-1)


class AdaptedAttention(FusedAttention):
    """A Linear that adds to what its weight makes, as one with an adapter."""

    def __init__(self):
        super().__init__()
        self.qkv = _AdaptedLinear(WIDTH, 3 * WIDTH)


class _AdaptedLinear(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.down, self.up = nn.Parameter(torch.randn(2, sizes[0])), torch.randn(sizes[1], 2)

    def forward(self, x):
        return super().forward(x) + x @ self.down.mT @ self.up.to(x).mT


class WithBiasAttention(FusedAttention):
    """Right but for a bias by distance, as ALiBi."""

    def attend(self, q, k):
        place = torch.arange(q.shape[2])
        return (q @ k.mT * self.scale - (place[:, None] - place).abs() / 3).softmax(-1)


class BySigmoidAttention(FusedAttention):
    """Right, and no softmax."""

    returns_attention = False

    def __init__(self):
        super().__init__()
        self.weights = _Sigmoid()

    def attend(self, q, k):
        return self.weights(q @ k.mT * self.scale)


class _Sigmoid(nn.Module):
    returns_attention = True

    def forward(self, scores, allowed=None):
        return (scores - math.log(scores.shape[-1])).sigmoid()


SCORES = [
    KeysFirstAttention,
    TalkingBeforeAttention,
    CappedAttention,
    OtherScaleAttention,
    ScaledByContentAttention,
]
"""Whose values and output are as read."""
OUTPUTS = [
    ValuesFirstAttention,
    HeadByHeadAttention,
    FeaturesApartAttention,
    TalkingAfterAttention,
    OfChannelsAttention,
    LinearAttention,
    GatedAttention,
    AdaptedAttention,
]
RIGHT = [FusedAttention, WithBiasAttention, BySigmoidAttention]
