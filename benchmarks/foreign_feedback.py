"""How GPT-2 and a ViT of other libraries learn by FA, beside BP and beside frozen blocks.

    OMP_NUM_THREADS=1 python benchmarks/foreign_feedback.py

Hugging Face's GPT-2 (2 blocks of 4 heads, 64 features) reads the characters of Python's help pages
in batches of 16 x 64; torchvision's ViT (2 blocks of 4 heads, 64 features) the 8 x 8 digits of
scikit-learn in batches of 64. Prints the mean and the sample standard deviation over seeds of the
training loss, averaged over the last 25 steps of AdamW at 1e-3. FA converts the whole net, and
nothing is named in ``leave_exact``.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pydoc_data.topics import topics
from typing import Any

import torch
from last_losses import last_loss, print_losses
from lightning.pytorch import seed_everything
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from transformers import GPT2Config, GPT2LMHeadModel

from lit_credit.datamodules import Digits
from lit_credit.rules import BP, FA, FrozenUnits
from lit_credit.rules.base import CreditRule
from lit_credit.tasks import Classification, NextToken

SYMBOLS, LENGTH, CLASSES = 128, 64, 10
RULES: dict[str, Callable[..., CreditRule]] = {
    "BP": BP,
    "FA, default": FA,
    "FA, feedback_scale .2": partial(FA, feedback_scale=0.2),
    "uSF": partial(FA, feedback="weight_std", feedback_sign="weight"),
    "blocks frozen": FrozenUnits,
}


class Logits(nn.Module):
    """GPT-2 from symbols (N, T) to logits (N, T, V)."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"n_positions": LENGTH, "n_embd": 64, "n_layer": 2, "n_head": 4}
        symbols = {"vocab_size": SYMBOLS, "bos_token_id": 0, "eos_token_id": 0}
        self.gpt = GPT2LMHeadModel(GPT2Config(**sizes, **symbols))

    def forward(self, tokens: Tensor) -> Tensor:
        """Run without a cache."""
        logits: Tensor = self.gpt(tokens, use_cache=False).logits
        return logits


def gpt2(make: Callable[..., CreditRule]) -> CreditRule:
    """GPT-2 under a rule."""
    names = {"units": ["gpt.transformer.h.*"], "readout": ["gpt.transformer.ln_f", "gpt.lm_head"]}
    return make(Logits(), NextToken(), **names)


def vit(make: Callable[..., CreditRule]) -> CreditRule:
    """A vision transformer under a rule."""
    net = VisionTransformer(8, 2, 2, 4, 64, 128, num_classes=CLASSES)
    net.conv_proj = nn.Conv2d(1, 64, 2, 2)
    # torchvision's readout starts at zero, of which uSF has no standard deviation.
    nn.init.normal_(net.get_submodule("heads.head").weight, std=0.02)  # type: ignore[arg-type]
    names = {"units": ["encoder.layers.*"], "readout": ["encoder.ln", "heads"]}
    return make(net, Classification(CLASSES), **names)


def texts(seed: int) -> Iterator[Any]:
    """Batches of characters, and of those that follow."""
    text = "\n".join(topics.values()).encode("ascii", "replace")
    symbols = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    generator = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(len(symbols) - LENGTH, (16, 1), generator=generator)
        rows = symbols[starts + torch.arange(LENGTH + 1)]
        yield rows[:, :-1], rows[:, 1:]


def digits(seed: int) -> Iterator[Any]:
    """Batches of images and classes."""
    data = Digits(batch_size=64, seed=seed, val_split=0)
    loader = data.train_dataloader()
    while True:
        yield from loader


NETS = {"GPT-2": (gpt2, texts), "ViT": (vit, digits)}


def loss_of(net: str, make: Callable[..., CreditRule], seed: int, steps: int) -> float:
    """The training loss at the end."""
    build, batches = NETS[net]
    seed_everything(seed, verbose=False)
    rule = build(make)
    stepper = torch.optim.AdamW(rule.net.parameters(), lr=1e-3)
    return last_loss(rule, stepper, batches(seed), steps)


def main() -> None:
    """Run and print every combination."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=list(NETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 123, 456])
    args = parser.parse_args()
    for net in args.nets:
        for name, make in RULES.items():
            losses = [loss_of(net, make, seed, args.steps) for seed in args.seeds]
            print_losses(f"{net:<6} {name:<22}", losses)


if __name__ == "__main__":
    main()
