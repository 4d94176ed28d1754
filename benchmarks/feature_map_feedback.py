"""How a LeNet learns MNIST by DFA, by the shape of its error and the distribution of its feedback.

    OMP_NUM_THREADS=1 python benchmarks/feature_map_feedback.py --root data

Prints the mean and the sample standard deviation over seeds of the training loss, averaged over the
last 25 steps, for AdamW and for SGD; chance is log(10) = 2.303. BP is the control.
"""

import argparse
from functools import partial

import torch
from last_losses import last_loss, print_losses
from lightning.pytorch import seed_everything
from torch import Tensor, nn

from lit_credit.datamodules import MNIST
from lit_credit.rules import BP, DFA
from lit_credit.rules.base import CreditRule
from lit_credit.tasks import Classification

UNITS = ["conv1+relu+pool", "conv2+relu+pool", "fc1+relu"]
OPTIMIZERS = {
    "AdamW 1e-3": partial(torch.optim.AdamW, lr=1e-3),
    "SGD 0.001": partial(torch.optim.SGD, lr=0.001),
    "SGD 0.01": partial(torch.optim.SGD, lr=0.01),
    "SGD 0.1": partial(torch.optim.SGD, lr=0.1),
}
RULES = {
    "BP": BP,
    "DFA flattened normal (default)": DFA,
    "DFA flattened xavier": partial(DFA, feedback="xavier"),
    "DFA per_position normal": partial(DFA, error="per_position"),
    "DFA per_position xavier": partial(DFA, error="per_position", feedback="xavier"),
}


class LeNet(nn.Module):
    """Two convolutions and two linear layers; one ReLU and one pooling for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2 = nn.Linear(400, 120), nn.Linear(120, 10)
        self.relu, self.pool = nn.ReLU(), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 1, 28, 28) to logits (N, 10)."""
        x = self.pool(self.relu(self.conv1(x)))
        x = self.pool(self.relu(self.conv2(x)))
        logits: Tensor = self.fc2(self.relu(self.fc1(x.flatten(1))))
        return logits


def loss_of(make: type[CreditRule], optimizer: str, root: str, seed: int, steps: int) -> float:
    """The training loss at the end."""
    seed_everything(seed, verbose=False)
    rule = make(LeNet(), Classification(10), units=UNITS, readout=["fc2"])
    data = MNIST(root=root, batch_size=64, seed=seed, val_split=0)
    data.prepare_data()
    data.setup("fit")
    stepper = OPTIMIZERS[optimizer](rule.net.parameters())
    return last_loss(rule, stepper, data.train_dataloader(), steps)


def main() -> None:
    """Run and print every combination."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="data", help="folder of MNIST")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 123, 456])
    args = parser.parse_args()
    for optimizer in OPTIMIZERS:
        for name, make in RULES.items():
            losses = [loss_of(make, optimizer, args.root, s, args.steps) for s in args.seeds]
            print_losses(f"{optimizer:<11} {name:<32}", losses)


if __name__ == "__main__":
    main()
