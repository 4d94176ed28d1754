"""Six diagnostics of a language model of Hugging Face: as it is, and over its revisions.

Without arguments a tiny GPT-2 is drawn at random, and saved three times while it learns a page of
help texts. No network is needed::

    python examples/diagnose_huggingface.py
    python examples/diagnose_huggingface.py --model FOLDER_OR_NAME --revisions step0 step1000 ...
"""

from argparse import ArgumentParser
from pathlib import Path
from pydoc_data.topics import topics

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
)

from lit_credit import diagnose
from lit_credit.callbacks import (
    AttentionMaps,
    CircuitMatching,
    GradientNorms,
    HeadAttribution,
    HeadBehaviour,
    ResidualNorms,
)

ROWS, LENGTH = 8, 64
TEXT = topics["assignment"][:20_000]


def tiny() -> PreTrainedModel:
    """GPT-2 with 2 layers of 4 heads and 64 features, for ASCII characters."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=128,
        n_positions=LENGTH,
        n_embd=64,
        n_layer=2,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    model.loss_type = "ForCausalLM"  # its default, without the advice to say so
    return model


def batch_of(tokens: list[int]) -> dict[str, Tensor]:
    """Tokens in rows; the model shifts the labels."""
    ids = torch.tensor(tokens[: ROWS * LENGTH]).view(ROWS, LENGTH)
    return {"input_ids": ids, "labels": ids}


def save_revisions(model: PreTrainedModel, batch: dict[str, Tensor], folder: Path) -> list[Path]:
    """Train on one batch, and save the model as ``step0``, ``step20`` and ``step40``."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    saved = []
    for step in range(41):
        if step % 20 == 0:
            saved.append(folder / f"step{step}")
            model.save_pretrained(saved[-1])
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return saved


def main(arguments: list[str] | None = None) -> None:
    """Diagnose a model, then its revisions."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="local folder or name of the hub; else a tiny GPT-2")
    parser.add_argument("--revisions", nargs="*", default=[], help="local folders of its weights")
    parser.add_argument("--out", default="runs/examples/diagnose_huggingface", help="folder")
    options = parser.parse_args(arguments)
    if options.model:
        model = AutoModelForCausalLM.from_pretrained(options.model)
        batch = batch_of(AutoTokenizer.from_pretrained(options.model)(TEXT).input_ids)
    else:
        model, batch = tiny(), batch_of(list(TEXT.encode("ascii", "replace")))

    diagnostics = [
        AttentionMaps(),
        HeadBehaviour(),
        CircuitMatching(),
        HeadAttribution(),
        ResidualNorms(),
        GradientNorms(),
    ]
    found = diagnose(model, diagnostics, batch)
    print(found)
    out = Path(options.out)
    for name, figure in found.figures.items():
        path = out / "now" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)

    revisions = options.revisions
    if not options.model:
        revisions = save_revisions(model, batch, out / "weights")
    if revisions:
        print(diagnose(model, diagnostics, batch, checkpoints=revisions, out=out / "revisions"))
    print(f"\nfigures: {out}\ntensorboard --logdir {out}")


if __name__ == "__main__":
    main()
