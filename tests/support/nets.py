"""Small nets that take what the data of these tests are."""

import torch
from torch import nn

from lit_credit.studies.addition import MicroAdder

FEATURES, CLASSES, WIDTH, SYMBOLS = 12, 4, 8, 20


class Tokens(nn.Module):
    """Reads features as two tokens that attend to each other."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH // 2, 2, batch_first=True)

    def forward(self, h):
        x = h.unflatten(1, (2, WIDTH // 2))
        return self.attention(x, x, x, need_weights=False)[0].flatten(1)


class NoisyNet(nn.Module):
    """A residual net in which random numbers and modes matter, with an attention in front."""

    credit_units = ("embed", "blocks.0", "blocks.1")
    readout = ("head",)
    residual_stream = ("blocks.0", "blocks.1", "head")

    def __init__(self):
        super().__init__()
        self.embed = nn.Sequential(
            nn.Linear(FEATURES, WIDTH), nn.BatchNorm1d(WIDTH), nn.Dropout(0.2), Tokens()
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Dropout(0.2)) for _ in range(2)
        )
        self.head = nn.Linear(WIDTH, CLASSES)
        self.fails_on = None

    def forward(self, x):
        h = self.embed(x)
        for block in self.blocks:
            h = h + block(h)
        if len(x) == self.fails_on:
            raise RuntimeError("the net fails")
        return self.head(h)


class Symbols(nn.Module):
    """Takes features, or whole numbers, for symbols of an alphabet."""

    def __init__(self):
        super().__init__()
        self.token = nn.Embedding(SYMBOLS, WIDTH)

    def forward(self, x):
        return self.token((x if x.dtype == torch.long else 9 * x).long() % SYMBOLS)


class Attend(nn.Module):
    """Every token to every token, twice, added to the stream, and its last position."""

    def __init__(self):
        super().__init__()
        self.before = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x):
        x = x + self.before(x, x, x, need_weights=False)[0]
        return (x + self.attention(x, x, x, need_weights=False)[0])[:, -1]


class SymbolNet(NoisyNet):
    """The noisy net for sequences of symbols."""

    def __init__(self):
        super().__init__()
        norm = nn.LayerNorm(WIDTH)
        self.embed = nn.Sequential(Symbols(), norm, nn.Dropout(0.2), Attend())


class AddingNet(NoisyNet):
    """The noisy net, with a frozen net that adds beside it, which takes no part."""

    def __init__(self):
        super().__init__()
        self.adder = MicroAdder(digits=2).requires_grad_(False)
