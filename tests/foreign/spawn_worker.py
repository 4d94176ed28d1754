"""Two processes train a foreign module: ``python -m tests.foreign.spawn_worker FOLDER``."""

import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_credit.callbacks import CreditAlignment, GradientNorms, ResidualNorms


class Foreign(LightningModule):
    """Automatic optimization, a DataLoader, and a metric that all processes make together."""

    def __init__(self):
        seed_everything(3, verbose=False)
        super().__init__()
        self.model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.1), nn.Linear(8, 3))

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.model(batch[0]), batch[1])
        self.log("train/loss", loss, sync_dist=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", F.cross_entropy(self.model(batch[0]), batch[1]), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class EachRank(Callback):
    """Saves every process's weights."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        torch.save(pl_module.state_dict(), self.folder / f"rank{trainer.global_rank}.pt")


def data(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(32, 6, generator=generator)
    return DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=4, shuffle=seed == 0)


def train(strategy: str, folder: Path, watch: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kinds = (ResidualNorms, GradientNorms, CreditAlignment)
    options = {"units": ["model.0", "model.2"], "n_samples": 7, "figure": False}
    callbacks = [kind(**options) for kind in kinds] if watch else []
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        logger=CSVLogger(folder, name="", version=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, EachRank(folder)],
    )
    module = Foreign()
    trainer.fit(module, data(0), data(1))
    if trainer.is_global_zero and strategy != "ddp":  # with it, every process is this script
        torch.save(module.state_dict(), folder / "parent.pt")
        (folder / "rows").write_text(str([len(c.history.rows) for c in callbacks]))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    to = Path(sys.argv[1])
    train("ddp_notebook", to / "bare", watch=False)
    for strategy in ("ddp_notebook", "ddp_spawn"):
        train(strategy, to / strategy, watch=True)
