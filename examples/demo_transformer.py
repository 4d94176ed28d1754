"""Lightning's demo Transformer learns to continue a text, while four diagnostics look inside.

With the callbacks in Python, and with the same ones in YAML, one entry each::

    python examples/demo_transformer.py
    python examples/demo_transformer.py fit --config examples/demo_transformer.yaml

The demo makes its embeddings sqrt(width) times as large, so that the softmax of its first layers is
all but saturated before training begins: their entropy is a seventh of what it could be.
"""

import math
import sys
from argparse import ArgumentParser
from pathlib import Path
from pydoc_data.topics import topics

import lightning as L
import torch
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos import Transformer
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_credit.callbacks import AttentionMaps, GradientNorms, ResidualNorms, SoftmaxJacobian

SYMBOLS, LENGTH = 128, 32  # ASCII; characters of a piece


class Continuations(L.LightningDataModule):
    """Pieces of a text, each with the piece that follows it.

    Args:
        text: a file; None takes the help pages that Python ships.
        batch_size: pieces of a batch.
    """

    def __init__(self, text: Path | None = None, batch_size: int = 64) -> None:
        super().__init__()
        self.batch_size = batch_size
        words = text.read_text() if text else "\n".join(topics.values())[:100_000]
        codes = torch.tensor(list(words.encode("ascii", "replace")))
        pairs = codes.unfold(0, 2 * LENGTH, LENGTH)
        self.train, self.val = pairs[: -len(pairs) // 10], pairs[-len(pairs) // 10 :]

    def train_dataloader(self) -> DataLoader:
        """Nine tenths of the text."""
        return DataLoader(_split(self.train), self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """The last tenth."""
        return DataLoader(_split(self.val), self.batch_size)


def _split(pairs: Tensor) -> TensorDataset:
    return TensorDataset(*pairs.split(LENGTH, dim=1))


class TextTransformer(L.LightningModule):
    """The demo's encoder reads a piece; its decoder writes the next one, character by character.

    Args:
        width: features of a character.
        heads: of each attention.
        layers: of the encoder, and as many of the decoder.
        lr: learning rate.
    """

    def __init__(self, width: int = 64, heads: int = 2, layers: int = 2, lr: float = 2e-3) -> None:
        super().__init__()
        self.lr = lr
        self.model = Transformer(SYMBOLS, width, heads, 2 * width, layers, dropout=0.1)

    def loss(self, batch: list[Tensor]) -> Tensor:
        """Nats a character."""
        piece, following = batch
        written = torch.cat([piece[:, -1:], following[:, :-1]], 1)  # what is there already
        return F.nll_loss(self.model(piece, written), following.flatten())

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Optimized by Lightning."""
        loss = self.loss(batch)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log the loss."""
        self.log("val/loss", self.loss(batch), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


def main(arguments: list[str] | None = None) -> None:
    """Train, and say what was seen."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["fit"]:
        trainer = LightningCLI(TextTransformer, Continuations, args=arguments).trainer
    else:
        trainer = train(arguments)
    (maps,) = (c for c in trainer.callbacks if isinstance(c, AttentionMaps))
    for layer in (0, 1):
        name = f"model.transformer.encoder.layers.{layer}.self_attn"
        first, last = (
            maps.history.rows[row]["values"][f"attention/entropy/{name}/H00"] for row in (0, -1)
        )
        print(f"entropy of the first head of encoder layer {layer}: ", end="")
        print(f"{first:.2f} to {last:.2f} nats, at most {math.log(LENGTH):.2f}")
    print(f"figures and histories: {trainer.log_dir}\ntensorboard --logdir {trainer.log_dir}")


def train(arguments: list[str] | None) -> L.Trainer:
    """Train with the callbacks that this function adds."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max_epochs", type=int, default=3)
    parser.add_argument("--limit_train_batches", type=int, help="batches of an epoch, all if unset")
    parser.add_argument("--out", default="runs/examples/demo_transformer", help="folder")
    parser.add_argument("--text", type=Path, help="a file to learn, Python's help pages if unset")
    options = parser.parse_args(arguments)
    L.seed_everything(0)
    decoder = ["model.transformer.decoder.layers.*"]
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=options.max_epochs,
        limit_train_batches=options.limit_train_batches,
        log_every_n_steps=10,
        default_root_dir=options.out,
        callbacks=[
            ResidualNorms(units=decoder, n_samples=64),
            GradientNorms(units=decoder, n_samples=64),
            AttentionMaps(),
            SoftmaxJacobian(),
        ],
    )
    trainer.fit(TextTransformer(), Continuations(options.text))
    return trainer


if __name__ == "__main__":
    main()
