"""Attention over positions, and what is called attention and is over something else."""

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional as F

WIDTH, HEADS, SYMBOLS, T = 16, 2, 7, 6


class Attention(nn.Module):
    """Projections for all; ``named`` tells the number of heads."""

    def __init__(self, named=True):
        super().__init__()
        self.count = HEADS
        if named:
            self.num_heads = HEADS
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def split(self, x):
        """q, k, v (N, H, T, d)."""
        return self.qkv(x).unflatten(-1, (3, self.count, -1)).permute(2, 0, 3, 1, 4)

    def joined(self, y):
        return self.out(y.transpose(1, 2).flatten(2))


class Written(Attention):
    def forward(self, x):
        q, k, v = self.split(x)
        return self.joined((q @ k.mT).softmax(-1) @ v)


class Fused(Attention):
    def forward(self, x):
        return self.joined(F.scaled_dot_product_attention(*self.split(x), is_causal=True))


class FoldedHeads(Attention):
    def forward(self, x):
        q, k, v = (part.flatten(0, 1) for part in self.split(x))
        return self.joined(((q @ k.mT).softmax(-1) @ v).unflatten(0, (-1, self.count)))


class Differential(Attention):
    """Two maps a head, one of which is taken away."""

    def forward(self, x):
        q, k, v = self.split(x)
        one, two = (
            (a @ b.mT).softmax(-1) @ v for a, b in zip(q.chunk(2, -1), k.chunk(2, -1), strict=True)
        )
        return self.joined(one - 0.3 * two)


class WholeBlock(Attention):
    """With the residual path and an MLP in one submodule."""

    def forward(self, x):
        q, k, v = self.split(F.layer_norm(x, (WIDTH,)))
        x = x + self.joined((q @ k.mT).softmax(-1) @ v)
        return x + F.layer_norm(x, (WIDTH,)).relu()


class Sink(Attention):
    """A key that brings nothing, as in GPT-OSS."""

    def __init__(self, named=True):
        super().__init__(named)
        self.score = nn.Parameter(torch.ones(HEADS))

    def forward(self, x):
        q, k, v = self.split(x)
        sink = self.score.view(1, -1, 1, 1).expand(len(x), -1, x.shape[1], 1)
        return self.joined(torch.cat([q @ k.mT, sink], -1).softmax(-1)[..., :-1] @ v)


class SinkInFront(Sink):
    def forward(self, x):
        q, k, v = self.split(x)
        sink = self.score.view(1, -1, 1, 1).expand(len(x), -1, x.shape[1], 1)
        return self.joined(torch.cat([sink, q @ k.mT], -1).softmax(-1)[..., 1:] @ v)


class Parts(Attention):
    """A softmax of its own class, whose output is A itself."""

    class AttentionWeights(nn.Module):
        def forward(self, scores):
            return torch.softmax(scores, -1)

    def __init__(self, named=True):
        super().__init__(named)
        self.weights = self.AttentionWeights()

    def forward(self, x):
        q, k, v = self.split(x)
        return self.joined(self.weights(q @ k.mT) @ v)


class Declared(Attention):
    """A of a kind that is no softmax, in a submodule that says so."""

    class Sigmoid(nn.Module):
        returns_attention = True

        def forward(self, scores, allowed=None):
            return scores.sigmoid()

    def __init__(self, named=True):
        super().__init__(named)
        self.kind = self.Sigmoid()

    def forward(self, x):
        q, k, v = self.split(x)
        return self.joined(self.kind(q @ k.mT) @ v)


class Multihead(nn.MultiheadAttention):
    def __init__(self, named=True, **options):
        super().__init__(WIDTH, HEADS, batch_first=True, **options)

    def forward(self, x):
        return super().forward(x, x, x, need_weights=False)[0]


class MultiheadWithKey(Multihead):
    def __init__(self, named=True):
        super().__init__(add_bias_kv=True)


RIGHT = [
    Written, Fused, FoldedHeads, Differential, WholeBlock, Sink, SinkInFront, Parts, Declared,
    Multihead, MultiheadWithKey,
]  # fmt: skip


class Windows(Attention):
    """Longformer's layout: (N, T, H, window)."""

    def forward(self, x):
        q, k, v = (part.transpose(1, 2) for part in self.split(x))
        k, v = (F.pad(part, (0, 0, 0, 0, 1, 1)).unfold(1, 3, 1) for part in (k, v))
        a = torch.einsum("nthd,nthdw->nthw", q, k).softmax(-1)
        return self.out(torch.einsum("nthw,nthdw->nthd", a, v).flatten(2))


class Linear(Attention):
    """Linear attention: softmax of queries over features, of keys over positions."""

    def forward(self, x):
        q, k, v = self.split(x)
        return self.joined(q.softmax(-1) @ (k.softmax(-2).mT @ v))


class Channels(Attention):
    """XCiT: features attend to features."""

    def forward(self, x):
        q, k, v = (part.mT for part in self.split(x))
        return self.joined((F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT).softmax(-1) @ v)

    def joined(self, y):
        return super().joined(y.mT)


class FusedChannels(Channels):
    def forward(self, x):
        q, k, v = (part.mT.contiguous() for part in self.split(x))
        return self.joined(F.scaled_dot_product_attention(q, k, v))


class OverHeads(Attention):
    """Heads attend to heads: a transposition was forgotten."""

    def forward(self, x):
        q, k, v = (part.transpose(1, 2) for part in self.split(x))
        return self.out(F.scaled_dot_product_attention(q, k, v).flatten(2))


class HeadsBeforeSamples(Attention):
    """(H N, T, S), which is read as (N H, T, S)."""

    def forward(self, x):
        q, k, v = (torch.cat(p.chunk(HEADS, -1)) for p in self.qkv(x).chunk(3, -1))
        y = (q @ k.mT).softmax(-1) @ v
        return self.out(torch.cat(y.chunk(HEADS), -1))


class Gate(nn.Module):
    """A softmax over features that scales them."""

    def __init__(self, named=True):
        super().__init__()
        self.gate, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.out(x * self.gate(x).softmax(-1))


class Experts(nn.Module):
    """A softmax over experts, each of which looks at the position alone."""

    def __init__(self, named=True):
        super().__init__()
        self.gate, self.experts = nn.Linear(WIDTH, 4), nn.Linear(WIDTH, 4 * WIDTH)

    def forward(self, x):
        y = self.experts(x).unflatten(-1, (4, WIDTH))
        return (self.gate(x).softmax(-1)[..., None] * y).sum(-2)


class ChannelMap(nn.Module):
    """DANet's channel attention of a picture (N, C, 2, T / 2), without projections."""

    def __init__(self, named=True):
        super().__init__()

    def forward(self, x):
        f = x.mT
        return ((f @ f.mT).softmax(-1) @ f).unflatten(2, (2, -1))

    def back(self, y):
        return y.flatten(2).mT


WRONG = [
    Windows, Linear, Channels, FusedChannels, OverHeads, HeadsBeforeSamples, Gate, Experts,
    ChannelMap,
]  # fmt: skip


class Net(LightningModule):
    """A net of symbols with one attention."""

    def __init__(self, attention):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(SYMBOLS, WIDTH)
        self.attention = attention
        self.head = nn.Linear(WIDTH, SYMBOLS)

    def forward(self, tokens):
        h = self.attention(self.embed(tokens))
        return self.head(getattr(self.attention, "back", lambda y: y)(h))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch).flatten(0, 1), batch.flatten())


def tokens(n=4, length=T):
    return torch.randint(SYMBOLS, (n, length), generator=torch.Generator().manual_seed(1))
