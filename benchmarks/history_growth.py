"""Do checkpoints and epochs grow with the history of a run?

Trains a small residual net under FA, with diagnostics that measure after every epoch, and a
checkpoint and TensorBoard points of each. Prints the size of the checkpoint and the CPU time of an
epoch, the median of the last ten, at some epochs::

    python benchmarks/history_growth.py --epochs 20 2000
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from lit_credit.callbacks import (
    CreditAlignment,
    GradientNorms,
    MetricHistory,
    ResidualNorms,
    WeightAlignment,
)
from lit_credit.datamodules import TensorLoader
from lit_credit.models import ResidualMLP
from lit_credit.rules import FA
from lit_credit.tasks import Classification

_KINDS = (ResidualNorms, GradientNorms, CreditAlignment, WeightAlignment)
_LAST = 10


class Watch(Callback):
    """Notes the CPU time of every epoch, and what its checkpoint weighs."""

    def __init__(self, file: Path, epochs: Sequence[int]) -> None:
        self.file = file
        self.epochs = set(epochs)
        self.times: list[float] = []
        self._started = time.process_time()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch that has ended, whose checkpoint is written by now."""
        now = time.process_time()
        self.times.append(now - self._started)
        self._started = now
        epoch = trainer.current_epoch
        if epoch in self.epochs:
            kilobytes = self.file.stat().st_size / 1000
            print(f"{epoch:8}{kilobytes:14.1f}{1000 * median(self.times[-_LAST:]):17.1f}")


def loader(rows: int) -> TensorLoader:
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 32, generator=generator)
    return TensorLoader([x, torch.randint(10, (rows,), generator=generator)], batch_size=32)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, nargs="+", default=[20, 2000])
    epochs = parser.parse_args(words).epochs
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    seed_everything(0, verbose=False)
    module = FA(ResidualMLP(32, width=32, num_classes=10, depth=2), Classification(10))
    print(f"{'epoch':>8}{'checkpoint kB':>14}{'CPU ms an epoch':>17}")
    with tempfile.TemporaryDirectory() as folder:
        last = Path(folder, "last.ckpt")
        kinds: list[Callback] = [MetricHistory(), *(kind(figure=False) for kind in _KINDS)]
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=max(epochs) + 1,
            logger=TensorBoardLogger(folder, name="", version=""),
            callbacks=[
                *kinds,
                Watch(last, epochs),
                ModelCheckpoint(folder, filename="last", enable_version_counter=False),
            ],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, loader(32), loader(64))


if __name__ == "__main__":
    main()
