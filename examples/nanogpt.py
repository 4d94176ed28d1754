"""A small GPT in the manner of nanoGPT learns to copy; five diagnostics watch how.

Every sequence is a block of random letters, written again and again. Whoever has seen the block
once can finish all that follows: find the letter where it stood before, and say what came after::

    python examples/nanogpt.py
"""

from argparse import ArgumentParser

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_credit.callbacks import (
    AttentionMaps,
    CircuitMatching,
    HeadAttribution,
    HeadBehaviour,
    ResidualNorms,
)

LETTERS, LENGTH = 26, 32


class CausalSelfAttention(nn.Module):
    """Queries, keys and values from one matrix."""

    def __init__(self, n_embd: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)
        self.c_proj = nn.Linear(n_embd, n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, d) to (N, T, d)."""
        split = [part.unflatten(-1, (self.n_head, -1)) for part in self.c_attn(x).chunk(3, dim=-1)]
        q, k, v = (part.transpose(1, 2) for part in split)  # (N, H, T, d / H)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and an MLP, each added to the stream."""

    def __init__(self, n_embd: int, n_head: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)
        self.attn = CausalSelfAttention(n_embd, n_head)
        self.mlp = nn.Sequential(
            nn.Linear(n_embd, 4 * n_embd), nn.GELU(), nn.Linear(4 * n_embd, n_embd)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, d) to (N, T, d)."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class NanoGPT(L.LightningModule):
    """Token and position embeddings, blocks, a norm and the logits."""

    def __init__(self, n_layer: int = 2, n_head: int = 4, n_embd: int = 64) -> None:
        super().__init__()
        self.wte = nn.Embedding(LETTERS, n_embd)
        self.wpe = nn.Embedding(LENGTH, n_embd)
        self.h = nn.ModuleList(Block(n_embd, n_head) for _ in range(n_layer))
        self.ln_f = nn.LayerNorm(n_embd)
        self.lm_head = nn.Linear(n_embd, LETTERS, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T) to logits (N, T, V)."""
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of what follows; -1 is not asked for."""
        x, y = batch
        loss = F.cross_entropy(self(x).flatten(0, 1), y.flatten(), ignore_index=-1)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=2e-3, weight_decay=0.1)


def copies(n: int) -> TensorDataset:
    """Blocks of 9 to 16 letters repeated, and the next letter from the second writing on."""
    periods = torch.randint(9, 17, (n, 1))
    places = torch.arange(LENGTH + 1)
    blocks = torch.rand(n, LETTERS).argsort(1)  # different letters
    text = blocks.gather(1, places % periods)
    return TensorDataset(text[:, :-1], text[:, 1:].masked_fill(places[1:] < periods, -1))


def main(arguments: list[str] | None = None) -> None:
    """Train, and say what was seen."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max_epochs", type=int, default=6)
    parser.add_argument("--n_sequences", type=int, default=6400)
    parser.add_argument("--out", default="runs/examples/nanogpt", help="folder")
    options = parser.parse_args(arguments)
    L.seed_everything(0)
    heads = HeadBehaviour()
    attribution = HeadAttribution(n_samples=128)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=options.max_epochs,
        log_every_n_steps=10,
        default_root_dir=options.out,
        callbacks=[
            ResidualNorms(units=["h.*"], n_samples=128),
            AttentionMaps(),
            heads,
            CircuitMatching(),
            attribution,
        ],
    )
    train = DataLoader(copies(options.n_sequences), batch_size=64, shuffle=True)
    trainer.fit(NanoGPT(), train, DataLoader(copies(128), batch_size=64))
    before, after = heads.history.rows[0]["values"], heads.history.rows[-1]["values"]
    for score in ("previous_token", "induction"):
        tag = f"behaviour/{score}/best"
        print(f"best head, {score}: {before[tag]:.2f} before training, {after[tag]:.2f} after")
    right = attribution.history.rows[-1]["values"]["attribution/accuracy/group"]
    print(f"letters copied right: {right:.0%}")
    print(f"figures and histories: {trainer.log_dir}\ntensorboard --logdir {trainer.log_dir}")


if __name__ == "__main__":
    main()
