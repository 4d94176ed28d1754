"""What an update of the n-gram study costs, beside plain PyTorch code for the same net.

    OMP_NUM_THREADS=1 python benchmarks/ngram_time.py

Ten symbols, 20 parallel heads of 5 features, batches of 1024. The plain code is what one would
write first: a loop over 20 ``nn.MultiheadAttention`` modules, and a DataLoader over single samples.
Ours runs inside of a Lightning Trainer, with logger and callbacks off. Rounds are interleaved; CPU
times of the process, with ratios within a round, and the median over rounds. The search for a GPU's
driver that Lightning adds to a step (see ``lit_credit.rules.optimization``) is off for all.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from lightning.pytorch import Trainer
from timing import begin, print_table, time_rounds
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_credit.rules import BP
from lit_credit.rules.optimization import skip_device_search
from lit_credit.studies.ngram import AttentionOnly, LastPosition, LowRank, NGram, NGramPrediction

BATCH = 1024
Mode = Literal["sampled", "exact"]


class PlainAttentionOnly(nn.Module):
    """The same net as AttentionOnly, module by module."""

    def __init__(self, symbols: int, width: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, width)
        self.position = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.heads = nn.ModuleList(
            nn.MultiheadAttention(width, 1, bias=False, batch_first=True) for _ in range(heads)
        )
        self.head = nn.Linear(width, symbols, bias=False)

    def forward(self, contexts: Tensor) -> Tensor:
        """Map contexts (N, 2) to logits (N, V)."""
        h = self.embed(contexts)
        x = self.norm(h) + self.position(torch.arange(2))
        mask = torch.ones(2, 2).triu(1).bool()
        for head in self.heads:
            h = h + head(x, x, x, attn_mask=mask, need_weights=False)[0]
        logits: Tensor = self.head(h[:, -1])
        return logits


class PlainLowRank(nn.Module):
    """The same net as LowRank."""

    def __init__(self, symbols: int, width: int) -> None:
        super().__init__()
        self.symbols = symbols
        self.embed = nn.Embedding(symbols**2, width)
        self.head = nn.Linear(width, symbols, bias=False)

    def forward(self, contexts: Tensor) -> Tensor:
        """Map contexts (N, 2) to logits (N, V)."""
        logits: Tensor = self.head(self.embed(contexts[:, 0] * self.symbols + contexts[:, 1]))
        return logits


def plain(net: nn.Module, steps: int) -> Callable[[], None]:
    """A loop as in a first script, over samples that were drawn before."""
    x, y, *_ = next(iter(NGram(LastPosition(10), batch_size=BATCH * steps).train_dataloader()))
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

    def run() -> None:
        for contexts, target in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(contexts), target).backward()
            optimizer.step()

    return run


def ours(net: nn.Module, mode: Mode, steps: int, updates: int) -> Callable[[], None]:
    """The rule under a Trainer."""

    def run() -> None:
        rule = BP(
            net,
            NGramPrediction(),
            optimizer=lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
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
        ).fit(rule, datamodule=NGram(LastPosition(10), mode, BATCH, steps_per_epoch=steps))

    return run


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=50, help="updates in a round")
    parser.add_argument("--updates", type=int, default=50, help="updates in a training step")
    options = parser.parse_args(args)
    begin(1, options.rounds)
    skip_device_search()
    steps = options.steps
    nets: dict[str, tuple[nn.Module, Callable[[], nn.Module]]] = {
        "AttentionOnly, N 10, d 5, H 20": (
            PlainAttentionOnly(10, 5, 20),
            lambda: AttentionOnly(10, 5, heads=20),
        ),
        "LowRank, N 10, d 5": (PlainLowRank(10, 5), lambda: LowRank(10, 5)),
    }
    for name, (slow, make) in nets.items():
        contestants = {"plain, a DataLoader of samples": plain(slow, steps)}
        for mode in get_args(Mode):
            for updates in sorted({1, options.updates}):
                label = f"{mode}, {updates} update(s) a step"
                contestants[label] = ours(make(), mode, steps, updates)
        seconds = time_rounds(contestants, options.rounds)
        print_table(name, seconds, dict.fromkeys(seconds, steps))


if __name__ == "__main__":
    main()
