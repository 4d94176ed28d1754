"""Small data and a bare training loop, without a Trainer's loops, for the tests of the rules."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor

from lit_credit.datamodules import TensorLoader


def images(
    n: int = 96, features: int = 20, classes: int = 5, seed: int = 0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, features, generator=generator)
    return x, torch.randint(classes, (n,), generator=generator)


def loader(n: int = 96, features: int = 20, classes: int = 5, batch_size: int = 16) -> TensorLoader:
    return TensorLoader(images(n, features, classes), batch_size=batch_size, seed=0)


def quiet_trainer(**kwargs: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**(defaults | kwargs))


def gradients(rule: LightningModule, batch: Any) -> dict[str, Tensor]:
    """What the rule hands to the optimizer, by parameter name of the net; zero where nothing."""
    named = dict(rule.net.named_parameters())
    _, scalar = rule.surrogate(batch)
    found = torch.autograd.grad(
        scalar, list(named.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(named, found, strict=True))


def seeded(make: Any, seed: int = 42) -> Any:
    seed_everything(seed, verbose=False)
    return make()
