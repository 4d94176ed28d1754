"""Attention whose heads show in different ways, or not."""

from torch import nn

from lit_credit.inspect.attention.head_weights import AttentionHeads
from tests.inspect.attention import head_nets


class ExplicitAttention(nn.Module):
    """Attention by a softmax, of values that are made of something else than keys."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x):
        parts = self.q(x), self.k(x), self.v(x.flip(-1))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        a = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
        return self.o((a @ v).transpose(1, 2).flatten(2))


class OwnAttention(nn.Module):
    """One head, whose weights go by names of its own."""

    def __init__(self):
        super().__init__()
        self.read, self.write = (nn.Linear(head_nets.WIDTH, head_nets.WIDTH) for _ in range(2))

    def head_weights(self):
        read, write = self.read.weight.detach().mT[None], self.write.weight.detach()[None]
        return AttentionHeads(query=read, key=read, value=read, output=write)

    def forward(self, x):
        u = self.read(x)
        return self.write((u @ u.mT * u.shape[-1] ** -0.5).softmax(-1) @ u)


class SelfAttention(nn.MultiheadAttention):
    """Whose output projection is no module that runs."""

    def __init__(self, batch_first=True):
        super().__init__(head_nets.WIDTH, 4, batch_first=batch_first)
        nn.init.normal_(self.in_proj_bias)

    def forward(self, x):
        return super().forward(x, x, x, need_weights=False)[0]


class Several(nn.Module):
    """Adds what it makes of the stream, and again."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, x):
        return self.attention(x) + self.attention(x)
