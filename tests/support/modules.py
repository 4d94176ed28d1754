"""Modules to train: ours, and those of a project that knows nothing of lit_credit."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, seed_everything
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from lit_credit.tasks import Classification
from tests.support.nets import CLASSES, NoisyNet


def seeded(make: Any, seed: int = 42) -> Any:
    seed_everything(seed, verbose=False)
    return make()


def rule(kind, net=NoisyNet, **kwargs):
    seed_everything(1, verbose=False)
    return kind(net(), Classification(CLASSES), **kwargs)


def gradients(rule: LightningModule, batch: Any) -> dict[str, Tensor]:
    """What the rule hands to the optimizer, by parameter name of the net; zero where nothing."""
    named = dict(rule.net.named_parameters())
    _, scalar = rule.surrogate(batch)
    found = torch.autograd.grad(
        scalar, list(named.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(named, found, strict=True))


class Foreign(LightningModule):
    """A project that knows nothing of lit_credit, with what such projects do in training_step."""

    def __init__(self, net=NoisyNet):
        seed_everything(1, verbose=False)
        super().__init__()
        self.model = net()
        self.train_accuracy = MulticlassAccuracy(CLASSES)
        self.outputs: list[float] = []
        self.seen: list[float] = []
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x):
        return self.model(x)

    def training_step(self, batch, batch_idx):
        x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch
        logits = self.model(x)
        loss = F.cross_entropy(logits, y)
        self.steps += 1
        self.outputs.append(loss.item())
        self.seen.append(float(x.sum()))
        self.train_accuracy(logits, y)
        self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        return loss

    def on_train_epoch_end(self):
        self.log("train/outputs", float(len(self.outputs)))
        self.outputs.clear()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class Validated(Foreign):
    """A foreign module that validates."""

    def validation_step(self, batch, batch_idx):
        x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch
        self.log("val/loss", F.cross_entropy(self.model(x), y))
