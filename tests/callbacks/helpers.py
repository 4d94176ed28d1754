"""Small modules and data, and a witness of what a callback leaves behind."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import (
    Callback,
    LightningDataModule,
    LightningModule,
    Trainer,
    seed_everything,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from lit_credit.datamodules import TensorLoader
from lit_credit.studies.addition import MicroAdder
from lit_credit.tasks import Classification

FEATURES, CLASSES, WIDTH, SYMBOLS = 12, 4, 8, 20


def tensors(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, FEATURES, generator=generator)
    return x, torch.randint(CLASSES, (n,), generator=generator)


def train_loader():
    """Four batches an epoch, resumable."""
    return TensorLoader(tensors(32), batch_size=8, seed=0)


def val_loader():
    return TensorLoader(tensors(20, seed=1), batch_size=6, shuffle=False)


class Rows(torch.utils.data.Dataset):
    """A dataset that keeps the order in which its rows were asked for by the training."""

    def __init__(self, n, kind):
        self.x, self.y = tensors(n)
        self.kind = kind

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        row = {"x": self.x[i], "y": self.y[i], "id": f"row {i}"}
        return row if self.kind == "dict" else (row["x"], row["y"])


def shuffled(kind="tuple", n=32):
    generator = torch.Generator().manual_seed(5)
    return DataLoader(Rows(n, kind), batch_size=8, shuffle=True, generator=generator)


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


class Data(LightningDataModule):
    """A given loader, and all pairs of a few symbols with what follows them."""

    def __init__(self, train=None):
        super().__init__()
        self.train = train

    def train_dataloader(self):
        return self.train

    def contexts(self):
        generator = torch.Generator().manual_seed(2)
        x = torch.cartesian_prod(torch.arange(3), torch.arange(4))
        prior = torch.rand(len(x), generator=generator)
        rows = torch.randn(len(x), CLASSES, generator=generator).softmax(-1)
        return x, prior / prior.sum(), rows


class ValidatedData(Data):
    def __init__(self, train, val):
        super().__init__(train)
        self.val = val

    def val_dataloader(self):
        return self.val


def rule(kind, net=NoisyNet, **kwargs):
    seed_everything(1, verbose=False)
    return kind(net(), Classification(CLASSES), **kwargs)


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


def trainer(folder, *callbacks, logger: Any = "tensorboard", **kwargs):
    loggers = {
        "tensorboard": lambda: TensorBoardLogger(folder, name="", version=""),
        "csv": lambda: CSVLogger(folder, name="", version=""),
    }
    defaults = {
        "accelerator": "cpu",
        "max_epochs": 3,
        "default_root_dir": folder,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "logger": loggers[logger]() if isinstance(logger, str) else logger,
        "callbacks": list(callbacks),
    }
    return Trainer(**(defaults | kwargs))


def fit(folder, module, *callbacks, ckpt_path=None, loaders=None, **kwargs):
    run = trainer(folder, *callbacks, **kwargs)
    train, val = loaders or (train_loader(), val_loader())
    data = Data(train) if val is None else ValidatedData(train, val)
    run.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return run


def events(folder):
    """What TensorBoard reads in a folder."""
    guidance = {"images": 0, "scalars": 0, "tensors": 0}
    return EventAccumulator(str(folder), size_guidance=guidance).Reload()


def same_state(a, b):
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def hooks(module):
    """How many hooks are registered, and which methods are overridden on an instance."""
    found = {}
    for name, child in module.named_modules():
        count = sum(len(v) for k, v in vars(child).items() if k.endswith("_hooks") and v)
        found[name] = (count, sorted({"forward", "log", "log_dict"} & set(vars(child))))
    return found


def traces(module):
    """All that a measurement must leave as it is, in a form that compares."""
    return {
        "hooks": hooks(module),
        "modes": [child.training for child in module.modules()],
        "grads": [None if p.grad is None else p.grad.tolist() for p in module.parameters()],
        "requires_grad": [p.requires_grad for p in module.parameters()],
        "places": [(p.data_ptr(), p.dtype) for p in module.parameters()],
        "state": {k: v.tolist() for k, v in module.state_dict().items() if "feedback" not in k},
        "lists": {k: list(v) for k, v in vars(module).items() if k in ("outputs", "seen")},
        "python": random.getstate(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "torch": torch.get_rng_state().tolist(),
        "autograd": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


class Witness(Callback):
    """Stands before a callback, and its ``after`` behind it; both look at every hook."""

    def __init__(self):
        self.before: Any = None
        self.compared = 0
        self.after = _After(self)

    def look(self, module):
        self.before = traces(module)

    def on_train_start(self, trainer, pl_module):
        self.look(pl_module)

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.look(pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        self.look(pl_module)

    def on_validation_end(self, trainer, pl_module):
        self.look(pl_module)

    def on_train_end(self, trainer, pl_module):
        self.look(pl_module)


class _After(Callback):
    def __init__(self, witness):
        self.witness = witness

    def compare(self, module):
        now = traces(module)
        for what, value in self.witness.before.items():
            assert now[what] == value, what
        self.witness.compared += 1

    def on_train_start(self, trainer, pl_module):
        self.compare(pl_module)

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.compare(pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        self.compare(pl_module)

    def on_validation_end(self, trainer, pl_module):
        self.compare(pl_module)

    def on_train_end(self, trainer, pl_module):
        self.compare(pl_module)
