"""Two processes with a timeout of 3 s: ``python -m tests.trainer.rank_zero_worker FOLDER``."""

import json
import sys
import time
import warnings
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy

from lit_credit.callbacks import Diagnostic
from lit_credit.trainer import rank_zero
from tests.foreign.spawn_worker import Foreign, data

SECONDS = 3


class Slow(Diagnostic):
    """Counts its measurements; the second one takes longer than the timeout of the processes."""

    name = "slow"
    section = "slow"

    def update(self, chunk):
        time.sleep(2 * SECONDS if len(self.history.rows) == 1 else 0)

    def compute(self):
        return {"count": float(len(self.history.rows))}


class Failing(Diagnostic):
    """Fails before the first step, and writes what each process learns of it."""

    name = "failing"
    section = "failing"

    def on_train_start(self, trainer, pl_module):
        try:
            super().on_train_start(trainer, pl_module)
        except Exception as error:
            folder = Path(trainer.default_root_dir)
            (folder / f"error{trainer.global_rank}").write_text(str(error))
            raise

    def update(self, chunk):
        raise ValueError("this one fails")

    def compute(self):
        return {}


class EachRank(Callback):
    """Writes what every process knows in the end."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        metrics = {"count": float(trainer.callback_metrics["slow/count"])}
        found = {"epoch": trainer.current_epoch, "step": trainer.global_step, **metrics}
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(found))
        torch.save(pl_module.state_dict(), self.folder / f"rank{trainer.global_rank}.pt")


def train(folder: Path, *callbacks: Callback) -> None:
    strategy = DDPStrategy(
        start_method="fork", process_group_backend="gloo", timeout=timedelta(seconds=SECONDS)
    )
    trainer = Trainer(
        max_epochs=5,
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, EachRank(folder)],
    )
    trainer.fit(Foreign(), data(0), data(1))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    rank_zero.SECONDS_UNTIL_A_WORD = 1.0
    to = Path(sys.argv[1])
    stop = EarlyStopping("slow/count", mode="max", stopping_threshold=1.5)
    saved = ModelCheckpoint(to, monitor="slow/count", mode="max", filename="{epoch}")
    train(to, stop, Slow(), saved)
    with suppress(Exception):
        train(to, Failing())
