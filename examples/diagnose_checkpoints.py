"""Checkpoints of a plain PyTorch loop, diagnosed afterwards: where does the stream grow?

The loop knows nothing of lit_credit. It trains a small net on scikit-learn's digits and saves
``ckpts/ckpt_0.pt``, ``ckpts/ckpt_200.pt``, ...::

    python examples/diagnose_checkpoints.py
"""

from argparse import ArgumentParser
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from lit_credit import diagnose
from lit_credit.callbacks import GradientNorms, ResidualNorms

EVERY = 200


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Add to the stream."""
        return x + self.layers(self.norm(x))


class Net(nn.Module):
    """Four residual blocks."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(64, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(4))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (N, 64)."""
        h = self.embed(x)
        for block in self.blocks:
            h = block(h)
        return self.head(h)


def digits() -> tuple[Tensor, Tensor]:
    """Images and labels."""
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)


def train(net: Net, folder: Path, steps: int) -> None:
    """Train as many people do, and save a checkpoint every 200 steps."""
    x, y = digits()
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    for step in range(steps + 1):
        if step % EVERY == 0:
            saved = {"model": net.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(saved, folder / f"ckpt_{step}.pt")
        rows = torch.randint(len(x), (32,))
        optimizer.zero_grad()
        F.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()


def loss(net: Net, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The loss that the loop minimizes."""
    x, y = batch
    return F.cross_entropy(net(x), y)


def main(arguments: list[str] | None = None) -> None:
    """Train, then diagnose the checkpoints."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", default="runs/examples/diagnose_checkpoints", help="folder")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    net, folder = Net(), Path(options.out)
    train(net, folder / "ckpts", options.steps)

    x, y = digits()
    found = diagnose(
        net,
        [ResidualNorms(), GradientNorms()],
        (x[:256], y[:256]),
        loss=loss,
        checkpoints=f"{folder}/ckpts/ckpt_*.pt",
        key="model",
        out=folder / "diagnosis",
    )
    print(found)
    print(f"\n{folder / 'diagnosis' / 'figures' / 'residual_norms.png'}")


if __name__ == "__main__":
    main()
