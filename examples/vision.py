"""A torchvision ResNet, or a vision transformer, learns scikit-learn's digits.

The net is torchvision's own, unchanged; the diagnostics are told which of its parts to look at::

    python examples/vision.py --net resnet18
    python examples/vision.py --net vit
"""

from argparse import ArgumentParser

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split
from torchvision.models import VisionTransformer, resnet18

from lit_credit.callbacks import (
    AttentionMaps,
    GradientNorms,
    HeadAttribution,
    ResidualNorms,
    SoftmaxJacobian,
)


def digits() -> TensorDataset:
    """1797 images (3, 32, 32) with values in -1 .. 1, and their digits."""
    images, labels = load_digits(return_X_y=True)
    grey = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    large = F.interpolate(grey, size=32, mode="bilinear")
    return TensorDataset(large.expand(-1, 3, -1, -1), torch.tensor(labels))


def network(name: str) -> nn.Module:
    """ResNet-18 as it is, or a vision transformer of four layers."""
    if name == "resnet18":
        return resnet18(num_classes=10)
    return VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=4,
        num_heads=4,
        hidden_dim=64,
        mlp_dim=128,
        num_classes=10,
    )


class Classifier(L.LightningModule):
    """Any net that makes ten logits of an image.

    Args:
        net: the net.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy."""
        images, labels = batch
        loss = F.cross_entropy(self.net(images), labels)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log the accuracy."""
        images, labels = batch
        accuracy = (self.net(images).argmax(1) == labels).float().mean()
        self.log("val/accuracy", accuracy, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def diagnostics(name: str) -> list[L.Callback]:
    """What to watch, and where: at a net's residual blocks."""
    blocks = ["layer*.*"] if name == "resnet18" else ["encoder.layers.*"]
    watched = [
        ResidualNorms(units=blocks, n_samples=128),
        GradientNorms(units=blocks, n_samples=128),
    ]
    if name == "vit":
        class_token = HeadAttribution(position=0, n_samples=128)
        watched += [AttentionMaps(), SoftmaxJacobian(), class_token]
    return watched


def main(arguments: list[str] | None = None) -> None:
    """Train, and say what was seen."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", choices=["resnet18", "vit"], default="resnet18")
    parser.add_argument("--max_epochs", type=int, default=3)
    parser.add_argument("--limit_train_batches", type=int, help="batches of an epoch, all if unset")
    parser.add_argument("--out", default="runs/examples/vision", help="folder")
    options = parser.parse_args(arguments)
    L.seed_everything(0)
    watched = diagnostics(options.net)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=options.max_epochs,
        limit_train_batches=options.limit_train_batches,
        log_every_n_steps=5,
        default_root_dir=options.out,
        callbacks=watched,
    )
    train, val = random_split(digits(), [0.8, 0.2])
    loaders = DataLoader(train, batch_size=64, shuffle=True), DataLoader(val, batch_size=64)
    trainer.fit(Classifier(network(options.net)), *loaders)
    print(f"accuracy: {trainer.callback_metrics['val/accuracy']:.1%}")
    for what, diagnostic in zip(("stream", "gradient"), watched, strict=False):
        for row in (diagnostic.history.rows[0], diagnostic.history.rows[-1]):
            sizes = [v for tag, v in row["values"].items() if "/norm/" in tag]
            print(f"size of the {what} at step {row['step']}: ", end="")
            print(f"{sizes[0]:.3g} before the first block, {sizes[-1]:.3g} after the last")
    print(f"figures and histories: {trainer.log_dir}\ntensorboard --logdir {trainer.log_dir}")


if __name__ == "__main__":
    main()
