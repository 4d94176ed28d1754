"""What an update of the addition study costs, alone and for eight seeds at once.

    OMP_NUM_THREADS=1 python benchmarks/adder_time.py

The wide net (233 parameters) on sums of ten digits, batches of 256, drawn anew. Ours runs inside of
a Lightning Trainer, with logger and callbacks off, AdamW, clipping and a schedule; the first line
is a bare loop over the plain forward pass with the same sums, and is the base of the ratios.
Rounds are interleaved; CPU times of the process, the median over rounds. What is compiled is
compiled in the first round, which does not count.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from timing import begin, print_table, time_rounds
from torch import nn

from lit_credit.models import Ensemble
from lit_credit.rules import BP, WarmupCosine
from lit_credit.rules.optimization import skip_device_search
from lit_credit.studies.addition import Addition, AdditionTask, MicroAdder
from lit_credit.tasks import EachMember
from lit_credit.tasks.base import Task

SEEDS = 8
WIDE: dict[str, Any] = {"norm": "separate", "output": "full", "hidden": 16, "ffn_bias": True}


def bare(steps: int) -> Callable[[], None]:
    """A loop without Lightning, over the plain forward pass."""
    net, task = MicroAdder(**WIDE, fast=False), AdditionTask()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)

    def run() -> None:
        for batch in Addition(steps_per_epoch=steps).train_dataloader():
            optimizer.zero_grad()
            task.loss(net(*task.inputs(batch)), batch).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()

    return run


def ours(net: nn.Module, steps: int, updates: int) -> Callable[[], None]:
    """The rule under a Trainer."""
    task: Task = AdditionTask()
    if isinstance(net, Ensemble):
        task = EachMember(task, SEEDS, ["exact"])

    def run() -> None:
        rule = BP(
            net,
            task,
            optimizer=lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
            lr_scheduler=lambda o: WarmupCosine(o, warmup=1000, total=20_000),
            lr_interval="step",
            clip_norm=1.0,
            updates_per_step=updates,
        )
        Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
        ).fit(rule, datamodule=Addition(steps_per_epoch=steps))

    return run


def evaluation() -> Callable[[], None]:
    """Loss and all metrics of 10,000 uniform sums."""
    net, task = MicroAdder(**WIDE), AdditionTask()
    batch = next(iter(Addition(val_chains=1).val_dataloader()))
    metrics = task.metrics().values()

    @torch.no_grad()
    def run() -> None:
        logits = net(*task.inputs(batch))
        task.loss(logits, batch)
        target = task.target(batch)
        for metric in metrics:
            metric.update(logits, target)

    return run


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200, help="updates in a round")
    parser.add_argument("--no-compile", action="store_true", help="leave out what is compiled")
    options = parser.parse_args(args)
    begin(1, options.rounds)
    skip_device_search()
    steps, make = options.steps, partial(MicroAdder, **WIDE)
    rows: dict[str, tuple[Callable[[], None], int]] = {
        "bare loop, plain pass": (bare(steps), steps)
    }
    for compiled in (False,) if options.no_compile else (False, True):
        word = ", compiled" if compiled else ""
        for updates in (1, 50):
            label = f"Lightning, {updates} update(s) a step{word}"
            rows[label] = ours(make(compile=compiled), steps, updates), steps
        net = Ensemble(make, SEEDS, compile=compiled)
        rows[f"{SEEDS} seeds at once, of one{word}"] = ours(net, steps, 50), steps * SEEDS
    seconds = time_rounds({label: run for label, (run, _) in rows.items()}, options.rounds)
    print_table("updates", seconds, {label: count for label, (_, count) in rows.items()})
    sums = "evaluation of 10,000 sums"
    print_table("evaluation", time_rounds({sums: evaluation()}, options.rounds), {sums: 1}, "each")


if __name__ == "__main__":
    main()
