"""How fast feedback alignment learns in BERT and T5, small and from random weights.

BERT names which of four tokens stands in a text of random ones, T5 copies a text::

    python benchmarks/hugging_face_feedback.py --steps 60
"""

from argparse import ArgumentParser
from statistics import mean

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from lit_credit.feedback import add_feedback, feedback_layers

SYMBOLS, LENGTH, BATCH, MARKS = 64, 16, 32, 4
RATES = {"bert": 1e-3, "t5": 3e-3}
RULES = {
    "BP": None,
    "FA": {},
    "FA, scale 0.1": {"scale": 0.1},
    "FA, head exact": {"leave_exact": ["lm_head"]},
    "FA, signs of W": {"distribution": "weight_std", "sign": "weight"},
}


def make(kind: str, seed: int) -> nn.Module:
    """A net without dropout."""
    torch.manual_seed(seed)
    if kind == "t5":
        sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
        config = T5Config(vocab_size=SYMBOLS, dropout_rate=0, decoder_start_token_id=0, **sizes)
        return T5ForConditionalGeneration(config)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=SYMBOLS,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            hidden_dropout_prob=0,
            attention_probs_dropout_prob=0,
            num_labels=MARKS,
        )
    )


def batch(kind: str, generator: torch.Generator) -> dict[str, Tensor]:
    """Random texts with what is to be said of them."""
    x = torch.randint(MARKS, SYMBOLS, (BATCH, LENGTH), generator=generator)
    if kind == "t5":
        return {"input_ids": x, "labels": x}
    labels = torch.randint(MARKS, (BATCH,), generator=generator)
    x[range(BATCH), torch.randint(LENGTH, (BATCH,), generator=generator)] = labels
    return {"input_ids": x, "labels": labels}


def train(kind: str, rule: str, seed: int, steps: int) -> tuple[float, float]:
    """The loss over the last 10 steps, and the cosine of B and W at the output layer."""
    net = make(kind, seed).train()
    head = "lm_head" if kind == "t5" else "classifier"
    if (options := RULES[rule]) is not None:
        exact = [head] if "leave_exact" in options else []
        add_feedback(net, seed=seed, **(options | {"leave_exact": exact}))
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATES[kind])
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = net(**batch(kind, generator)).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    pair = feedback_layers(net).get(head)
    aligned = float("nan")
    if pair is not None and pair.weight is not None:
        aligned = cosine_similarity(pair.feedback.flatten(), pair.weight.flatten(), dim=0).item()
    return mean(losses[-10:]), aligned


def main() -> None:
    """Print a line a net and rule."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for kind in RATES:
        for rule in RULES:
            found = [train(kind, rule, seed, options.steps) for seed in range(options.seeds)]
            losses = torch.tensor([loss for loss, _ in found])
            cosine = mean(aligned for _, aligned in found)
            print(
                f"{kind:5s} {rule:15s} loss {losses.mean():.3f} ± {losses.std():.3f}  "
                f"cos(B, W) of the output layer {cosine:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
