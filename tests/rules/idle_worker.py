"""Trains units that do not always run: ``python -m tests.rules.idle_worker DEVICES FOLDER``."""

import os
import sys
import warnings
from pathlib import Path

import torch

from lit_credit.rules import DFA, BlockFA
from lit_credit.tasks import Classification
from tests.rules.idle_nets import Chosen
from tests.support import loader, quiet_trainer, seeded

RULES = {"DFA": DFA, "BlockFA": BlockFA}
PASSES = [(0, 1, 2), (1,), (0, 1), (2,), (0, 2), ()]


class Alike(Chosen):
    """Every process leaves out the same units."""

    step = 0

    def forward(self, x):
        if self.training:
            self.running = PASSES[(self.step + self.shift()) % len(PASSES)]
            self.step += 1
        return super().forward(x)

    def shift(self):
        return 0


class Apart(Alike):
    """Each process leaves out units of its own."""

    def shift(self):
        return int(os.environ.get("LOCAL_RANK", 0))


def train_all(devices, folder):
    for name, kind in RULES.items():
        for net in (Alike, Apart):
            rule = seeded(
                lambda kind=kind, net=net: kind(
                    net(features=20, classes=5), Classification(5), optimizer=sgd, feedback_seed=3
                )
            )
            strategy = "ddp_find_unused_parameters_true" if devices > 1 else "auto"
            trainer = quiet_trainer(
                max_epochs=2, devices=devices, strategy=strategy, default_root_dir=folder
            )
            trainer.fit(rule, loader())
            rank = trainer.global_rank
            torch.save(rule.net.state_dict(), folder / f"{name}-{net.__name__}-{rank}.pt")


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.01)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    train_all(int(sys.argv[1]), Path(sys.argv[2]))
