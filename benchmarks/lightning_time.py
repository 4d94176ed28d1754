"""What Lightning adds to a training step.

    python benchmarks/lightning_time.py --net mlp

In turns, a rule takes steps in a Trainer without logger and progress bar, and bare ones.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from step_time import Batch, make_batches, make_rules, parser_of, rule_step
from timing import begin

from lit_credit.datamodules import TensorLoader
from lit_credit.rules import CreditRule

RULES = ["BP", "FA", "BlockFA", "DFA", "DFA, recompute"]


def fit_with(rule: CreditRule, batches: Sequence[Batch], extra: list[Callback]) -> None:
    """One epoch under a real Trainer; the validation data are 1024 rows."""
    x, y = (torch.cat(column) for column in zip(*batches, strict=True))
    loader = TensorLoader([x, y], batch_size=len(batches[0][0]), shuffle=False)
    validation = TensorLoader([x[:1024], y[:1024]], batch_size=1024, shuffle=False)
    Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        callbacks=extra,
        default_root_dir=tempfile.mkdtemp(),
    ).fit(rule, loader, validation)


class StepClock(Callback):
    """CPU time from the start of each step to that of the next: all that a Trainer does for it."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        """Note the time."""
        self.starts.append(time.process_time())

    def median(self) -> float:
        """Seconds a step."""
        return statistics.median(b - a for a, b in pairwise(self.starts))


def report_lightning(options: argparse.Namespace) -> None:
    """The step inside of a Trainer without logger and progress bar, less the bare step."""
    batches = make_batches(options.net, options.batch_size)
    fitted, bare = (
        {n: rule for n, rule in make_rules(options.net, options.depth).items() if n in RULES}
        for _ in range(2)
    )
    steps = {name: rule_step(rule) for name, rule in bare.items()}
    many = [batches[i % len(batches)] for i in range(options.steps + 1)]
    extra: dict[str, list[float]] = {name: [] for name in fitted}
    for round_ in range(-1, options.rounds):
        for name, rule in fitted.items():
            inside, outside = StepClock(), StepClock()
            fit_with(rule, many, [inside])
            for batch in many:
                outside.on_train_batch_start()
                steps[name](batch)
            if round_ >= 0:
                extra[name].append(1e3 * (inside.median() - outside.median()))
    for name, ms in extra.items():
        low, middle, high = statistics.quantiles(ms * 2, n=4)  # one round is enough, too
        print(f"Lightning adds to {name:22}{middle:6.2f} ms a step ({low:.2f} to {high:.2f})")


def main(args: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, rounds=20)
    parser.add_argument("--steps", type=int, default=10, help="steps in a round")
    options = parser.parse_args(args)
    begin(options.threads, options.rounds)
    report_lightning(options)


if __name__ == "__main__":
    main()
