"""Hugging Face's GPT-2, sized down, learns the characters of Python's help pages.

Batches are dicts, as its tokenizers and data collators make them; texts of unequal length are
padded, and the padding has the label -100::

    python examples/hugging_face_gpt2.py
"""

from argparse import ArgumentParser
from pydoc_data.topics import topics

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions

from lit_credit.callbacks import (
    AttentionMaps,
    CircuitMatching,
    GradientNorms,
    HeadAttribution,
    HeadBehaviour,
    ResidualNorms,
)

SYMBOLS, LENGTH, PADDING = 128, 64, 0  # ASCII


def lines(n: int) -> list[str]:
    """The first lines of the help pages that have words on them."""
    found = [line.strip() for page in topics.values() for line in page.splitlines()]
    return [line for line in found if len(line) > 40][:n]


def collate(texts: list[str]) -> dict[str, Tensor]:
    """Characters as numbers, padded on the right."""
    codes = [torch.tensor(list(text.encode("ascii", "replace")))[:LENGTH] for text in texts]
    ids = torch.full((len(codes), LENGTH), PADDING)
    for row, code in zip(ids, codes, strict=True):
        row[: len(code)] = code
    padded = ids == PADDING
    return {
        "input_ids": ids,
        "attention_mask": (~padded).long(),
        "labels": ids.masked_fill(padded, -100),  # the model shifts them
    }


class CausalLM(L.LightningModule):
    """GPT-2 with 2 layers of 4 heads and 64 features."""

    def __init__(self) -> None:
        super().__init__()
        config = GPT2Config(
            vocab_size=SYMBOLS,
            n_positions=LENGTH,
            n_embd=64,
            n_layer=2,
            n_head=4,
            bos_token_id=PADDING,
            eos_token_id=PADDING,
        )
        self.model = GPT2LMHeadModel(config)
        self.model.loss_type = "ForCausalLM"  # its default, without the advice to say so

    def forward(self, **batch: Tensor) -> CausalLMOutputWithCrossAttentions:
        """Logits and, of a batch with labels, the loss."""
        return self.model(**batch)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The model's own loss."""
        loss = self(**batch).loss
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the loss."""
        self.log("val/loss", self(**batch).loss, batch_size=len(batch["input_ids"]), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(arguments: list[str] | None = None) -> None:
    """Train, and say what was seen."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max_epochs", type=int, default=4)
    parser.add_argument("--n_lines", type=int, default=1200)
    parser.add_argument("--out", default="runs/examples/hugging_face_gpt2", help="folder")
    options = parser.parse_args(arguments)
    L.seed_everything(0)
    attribution = HeadAttribution(n_samples=64)
    norms = ResidualNorms(units=["model.transformer.h.*"], n_samples=64)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=options.max_epochs,
        log_every_n_steps=5,
        default_root_dir=options.out,
        callbacks=[
            norms,
            GradientNorms(units=["model.transformer.h.*"], n_samples=64),
            AttentionMaps(),
            HeadBehaviour(input_name="input_ids"),
            CircuitMatching(),
            attribution,
        ],
    )
    texts = lines(options.n_lines)
    train, val = texts[: -len(texts) // 10], texts[-len(texts) // 10 :]
    trainer.fit(
        CausalLM(),
        DataLoader(train, batch_size=32, shuffle=True, collate_fn=collate),
        DataLoader(val, batch_size=32, collate_fn=collate),
    )
    last = attribution.history.rows[-1]["values"]
    print(f"next character right: {last['attribution/accuracy/group']:.1%} of the time, ", end="")
    print(f"{last['attribution/accuracy/heads']:.1%} by the attention heads alone")
    print(f"figures and histories: {trainer.log_dir}\ntensorboard --logdir {trainer.log_dir}")


if __name__ == "__main__":
    main()
