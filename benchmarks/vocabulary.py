"""What direct feedback costs a GPT with many symbols: CPU time, numbers of B, memory.

    OMP_NUM_THREADS=1 python benchmarks/vocabulary.py
    OMP_NUM_THREADS=1 python benchmarks/vocabulary.py --vocab-sizes 50257 --width 768 --rounds 5

Contestants take turns in interleaved rounds, a step each on the same batch with the same fused
AdamW. CPU time is the median over rounds of its ratio to plain PyTorch, with the quartiles. Memory
is the most that a forward and a backward hold beyond weights and B.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
from step_time import Batch, peak_bytes, plain_step, rule_step
from timing import begin, ratio, time_rounds

from lit_credit.models import GPT
from lit_credit.rules import BP, DFA, CreditRule
from lit_credit.tasks import NextToken

PLAIN = "plain PyTorch BP"


def make_rules(make_net: Callable[[], GPT], rank: int) -> dict[str, CreditRule]:
    """The rules by name, each with its own net."""
    adamw = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.01, fused=True)

    def make(kind: type[CreditRule], **options: object) -> CreditRule:
        torch.manual_seed(0)
        return kind(make_net(), NextToken(), optimizer=adamw, **options)

    return {
        "BP": make(BP),
        "DFA": make(DFA),
        "DFA, shared_feedback": make(DFA, shared_feedback=True),
        f"DFA, rank {rank}": make(DFA, rank=rank),
        "DFA, error_at readout": make(DFA, error_at="readout"),
        "DFA, readout and rank": make(DFA, error_at="readout", rank=rank),
    }


def feedback_numbers(rule: CreditRule) -> int:
    """Numbers in all feedback matrices."""
    if not isinstance(rule, DFA):
        return 0
    return sum(matrix.numel() for matrix in rule.feedback.buffers() if matrix.is_floating_point())


def report(vocab_size: int, options: argparse.Namespace) -> None:
    """Time the contestants at one size of the vocabulary, and print their rows."""
    make_net = partial(
        GPT, vocab_size, options.positions, options.depth, heads=4, width=options.width
    )
    generator = torch.Generator().manual_seed(0)
    size = (2, options.batch_size, options.positions)
    x, y = torch.randint(vocab_size, size, generator=generator)
    batch: Batch = (x, y)
    rules = make_rules(make_net, options.rank)
    torch.manual_seed(0)
    steps = {PLAIN: plain_step(make_net())}
    steps |= {name: rule_step(rule) for name, rule in rules.items()}
    seconds = time_rounds(
        {name: partial(step, batch) for name, step in steps.items()}, options.rounds
    )
    weights = sum(weight.numel() for weight in rules["BP"].net.parameters())
    print(
        f"V {vocab_size}, width {options.width}, depth {options.depth}, "
        f"{x.numel()} positions a batch: {weights / 1e6:.1f} M weights"
    )
    print(
        f"{'rule':24}{'s':>8}{'to plain':>10}{'quartiles':>16}"
        f"{'numbers in B':>14}{'to weights':>12}{'peak MB':>9}"
    )
    for name in steps:
        each = [a / b for a, b in zip(seconds[name], seconds[PLAIN], strict=True)]
        low, _, high = statistics.quantiles(each * 2, n=4)  # one round is enough, too
        row = f"{name:24}{statistics.median(seconds[name]):8.3f}"
        row += f"{ratio(seconds, name, PLAIN):10.3f}{f'{low:.3f} to {high:.3f}':>16}"
        if name in rules:
            numbers = feedback_numbers(rules[name])
            peak = peak_bytes(rules[name], batch) / 1e6
            row += f"{numbers:14,}{numbers / weights:12.4f}{peak:9.1f}"
        print(row, flush=True)


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--vocab-sizes", type=int, nargs="+", default=[8000, 50257])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--positions", type=int, default=64, help="of a sequence")
    parser.add_argument("--batch-size", type=int, default=8, help="sequences in a batch")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(args)
    begin(options.threads, options.rounds)
    for vocab_size in options.vocab_sizes:
        report(vocab_size, options)


if __name__ == "__main__":
    main()
