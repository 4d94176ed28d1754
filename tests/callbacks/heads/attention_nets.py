"""Two nets with attention, and the credit at A of one of them written out in float64."""

import math

import torch
from lightning.pytorch import LightningModule, seed_everything
from torch import nn
from torch.nn import functional as F

from lit_credit.tasks import Classification
from tests.callbacks import twin

N, T, E, H, CLASSES = 6, 5, 8, 2, 3
CAUSAL = torch.ones(T, T, dtype=torch.bool).tril()


class Attention(nn.Module):
    """Causal, with the projections apart."""

    def __init__(self):
        super().__init__()
        for name in "qkvo":
            setattr(self, name, nn.Linear(E, E))

    def forward(self, x):
        q, k, v = (f(x).unflatten(-1, (H, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = Attention()

    def forward(self, x):
        return x + self.attention(x)


class Net(nn.Module):
    """Two blocks of attention, the mean over tokens, and a readout."""

    credit_units = ("blocks.0", "blocks.1")
    readout = ("head",)

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(E, CLASSES)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def make(kind, **kwargs):
    seed_everything(3, verbose=False)
    module = kind(Net(), Classification(CLASSES), **kwargs)
    with torch.no_grad():
        for parameter in module.net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def batch(n=N):
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(n, T, E, generator=generator)
    return x, torch.randint(CLASSES, (n,), generator=generator)


def attend(x, p, name, feedback=None):
    """The block's output and its A, a leaf of the graph above it."""
    q, k, v = (
        twin.linear(x, p, f"{name}.{which}", feedback).reshape(len(x), T, H, E // H).transpose(1, 2)
        for which in "qkv"
    )
    scores = q @ k.transpose(2, 3) / math.sqrt(E // H)
    a = scores.masked_fill(~CAUSAL, -math.inf).softmax(-1)
    y = twin.linear((a @ v).transpose(1, 2).reshape(len(x), T, E), p, f"{name}.o", feedback)
    return x + y, a


def net(p, x, feedback=None):
    x, first = attend(x.double(), p, "blocks.0.attention", feedback)
    x, second = attend(x, p, "blocks.1.attention", feedback)
    return twin.linear(x.mean(1), p, "head", feedback), x, [first, second]


def exact_credit(module, x, y, feedback=None):
    p = twin.parameters(module)
    logits, _, attention = net(p, x, feedback)
    return attention, torch.autograd.grad(F.cross_entropy(logits, y), attention)


def direct_credit(module, x, y):
    """Every block apart, on what enters it, with e B^T at its output."""
    p = twin.parameters(module)
    with torch.no_grad():
        logits, *_ = net(p, x)
    error = (logits.softmax(1) - F.one_hot(y, CLASSES)) / len(x)
    h, attention, credits = x.double(), [], []
    matrices = module.feedback.matrix.double().split(T * E)
    for index, matrix in enumerate(matrices):
        h, a = attend(h.detach(), p, f"blocks.{index}.attention")
        attention.append(a)
        credits.append(torch.autograd.grad(h, a, (error @ matrix.T).reshape(h.shape))[0])
    return attention, credits


class Encoder(LightningModule):
    """torch's own encoder, with padding, trained by Lightning."""

    def __init__(self):
        seed_everything(5, verbose=False)
        super().__init__()
        layer = nn.TransformerEncoderLayer(E, H, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(E, CLASSES)

    def training_step(self, data, batch_idx):
        x, y = data
        padding = torch.arange(T) >= 1 + torch.arange(len(x))[:, None]
        loss = F.cross_entropy(self.head(self.encoder(x, src_key_padding_mask=padding)[:, 0]), y)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def loader():
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batch(24)), batch_size=N)
