"""A net that turns NaN, in its activations or in its gradients, on a marked row."""

import torch
from torch import nn
from torch.nn import functional as F

from lit_credit.datamodules import TensorLoader
from tests import support
from tests.support import CLASSES, FEATURES, WIDTH

MARK, ROW = 100.0, 19
"""The third batch of eight has the marked row."""


class BadGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        return h.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.nan


class Poison(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.marked = kind, False

    def forward(self, h):
        if not self.marked:
            return h
        return h * torch.nan if self.kind == "activation" else BadGradient.apply(h)


class Marked(nn.Module):
    """Residual; with a norm's running statistics behind the poison, if asked for."""

    credit_units = ("embed", "blocks.0", "blocks.1")
    readout = ("head",)

    def __init__(self, kind="activation", norm=False):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.Dropout(0.2))
        self.poison = Poison(kind)
        last = nn.BatchNorm1d(WIDTH) if norm else nn.Identity()
        parts = [nn.Linear(WIDTH, WIDTH), self.poison, nn.Tanh(), last]
        self.blocks = nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Sequential(*parts)])
        self.head = nn.Linear(WIDTH, CLASSES)
        del self.poison

    def forward(self, x):
        self.blocks[1][1].marked = bool((x == MARK).any())
        h = self.embed(x.where(x != MARK, 0.0))
        for block in self.blocks:
            h = h + block(h)
        return self.head(h)


def with_gradient():
    return Marked("gradient")


def with_norm():
    return Marked(norm=True)


def marked_loader(batch_size=8, value=MARK, row=ROW):
    x, y = support.tensors(32)
    x[row, 3] = value
    return TensorLoader((x, y), batch_size=batch_size, shuffle=False)


class Automatic(support.Foreign):
    def __init__(self, net=with_norm, optimizer="sgd"):
        super().__init__(net)
        self.optimizer = optimizer

    def configure_optimizers(self):
        if self.optimizer == "sgd":
            return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
        fused = self.optimizer == "fused"
        return torch.optim.AdamW(self.parameters(), 0.01, weight_decay=0.1, fused=fused)


class Manual(Automatic):
    """Steps two optimizers a batch, of which the first is not concerned by the mark."""

    def __init__(self, net=with_norm):
        super().__init__(net)
        self.automatic_optimization = False
        self.other = nn.Linear(FEATURES, 1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.steps += 1
        for optimizer in self.optimizers():
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            clean = x.where(x != MARK, 0.0)
            first = optimizer.param_groups[0]["params"][0] is self.other.weight
            loss = self.other(clean).square().mean() if first else F.cross_entropy(self.model(x), y)
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)
        self.lr_schedulers().step()

    def configure_optimizers(self):
        one = torch.optim.AdamW(self.other.parameters(), 0.01)
        two = torch.optim.AdamW(self.model.parameters(), 0.01)
        return [one, two], [torch.optim.lr_scheduler.StepLR(two, 2, 0.5)]

    on_train_epoch_end = None
