"""What a training step costs under each rule.

    python benchmarks/step_time.py --net residual_mlp
    python benchmarks/step_time.py --net mlp
    python benchmarks/step_time.py --net gpt --batch-size 32 --memory-batch-size 64
    python benchmarks/step_time.py --net resnet18 --batch-size 32 --memory-batch-size 32 --dense
    python benchmarks/step_time.py --net energy_mlp --depth 3
    python benchmarks/step_time.py --net mlp --compile --rules DFA BlockFA

Rounds are interleaved: in each, every contestant takes some steps on the same batches with the
same fused AdamW; ratios are taken within a round, and the median over rounds is printed. Times are
CPU times of the process, so that other work on the machine counts as little as possible. Memory is
the most that a forward and a backward hold, at a batch so large that activations outweigh weights.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchvision
from timing import begin, ratio, time_rounds
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from lit_credit.models import GPT, MLP, EnergyMLP, ResidualMLP, ResNet
from lit_credit.rules import (
    BP,
    DFA,
    FA,
    FDFA,
    PEPITA,
    BlockFA,
    CreditRule,
    DirectKolenPollack,
    EquilibriumPropagation,
    ForwardForward,
    ForwardGradient,
    FrozenUnits,
    InferenceRule,
    KolenPollack,
    LocalLosses,
    PredictiveCoding,
    TargetPropagation,
    WeightMirror,
)
from lit_credit.rules.cut import CutRule
from lit_credit.tasks import Classification, NextToken

Batch = tuple[Tensor, Tensor]
Step = Callable[[Batch], None]

NETS: dict[str, Callable[[int], nn.Module]] = {
    "residual_mlp": lambda depth: ResidualMLP(3072, 256, 10, depth),
    "mlp": lambda depth: MLP(784, [512] * (depth - 1)),
    "gpt": lambda depth: GPT(depth=depth),
    "resnet18": lambda depth: torchvision.models.resnet18(num_classes=10),
    "resnet20": lambda depth: ResNet(20),
    "energy_mlp": lambda depth: EnergyMLP(784, [512] * (depth - 1)),
}
NAMES: dict[str, dict[str, list[str]]] = {
    "resnet18": {"units": ["conv1+bn1+relu+maxpool", "layer*.*"], "readout": ["fc"]}
}
BASES = {"plain PyTorch BP": "plain", "plain PyTorch BP, compiled": "compiled", "BP": "BP"}
STUDY = {
    "normalize_credit": True,
    "shared_feedback": {"embed": "blocks.0"},
    "clip_per_unit": {"blocks.*": 1.0},
}


def fused_adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01, fused=True)


def make_rules(
    net: str, depth: int, dense: bool = False, compile: bool = False
) -> dict[str, CreditRule]:
    def make(kind: type[CreditRule], **kwargs: Any) -> CreditRule:
        several = issubclass(kind, InferenceRule | ForwardForward | EquilibriumPropagation)
        if compile and not kwargs.get("recompute") and not several:
            kwargs["compile"] = True
        torch.manual_seed(0)
        task = NextToken() if net == "gpt" else Classification()
        names = NAMES.get(net, {}) if issubclass(kind, CutRule) else {}
        rule = kind(NETS[net](depth), task, optimizer=fused_adamw, **names, **kwargs)
        if isinstance(rule, CutRule) and rule.builds:
            rule.prepare(make_batches(net, batch_size=8, count=1)[0])
        return rule

    if net == "energy_mlp":  # the other rules take its layers for those of an MLP
        return {"BP": make(BP), "EquilibriumPropagation": make(EquilibriumPropagation)}
    rules = {
        "BP": make(BP),
        "FA": make(FA),
        "BlockFA": make(BlockFA),
        "DFA": make(DFA),
        "KolenPollack": make(KolenPollack),
        "WeightMirror": make(WeightMirror),
        "DirectKolenPollack": make(DirectKolenPollack),
        "DFA, sign": make(DFA, signal="sign"),
        "DFA, target": make(DFA, signal="target"),
        "DFA, rank 4": make(DFA, rank=4),
        "DFA, error at readout": make(DFA, error_at="readout"),
        "LocalLosses, pred": make(LocalLosses, loss="pred"),
    }
    if net != "gpt":  # similarities compare samples, not positions
        rules["LocalLosses, predsim"] = make(LocalLosses, loss="predsim")
    if not net.startswith("resnet"):  # whose batch norms a second forward would update again
        rules["DFA, recompute"] = make(DFA, recompute=True)
        rules["FDFA"] = make(FDFA)
    rules |= {
        "PredictiveCoding, 20 iterations": make(PredictiveCoding),
        "PredictiveCoding, fixed": make(PredictiveCoding, prediction="fixed", iterations=depth),
        "ForwardGradient": make(ForwardGradient),
        "ForwardGradient, weights": make(ForwardGradient, perturb="weights"),
        "SPSA": make(ForwardGradient, perturb="weights", derivative="difference"),
        "TargetPropagation": make(TargetPropagation),
        "TargetPropagation, fixed": make(TargetPropagation, learned_feedback=False),
    }
    if net != "gpt":  # whose inputs are symbols
        rules["PEPITA"] = make(PEPITA, derivative=net.startswith("resnet"))
        rules["ForwardForward"] = make(ForwardForward)
    if dense:
        rules["BlockFA, dense maps"] = make(BlockFA, feedback_maps="dense")
    if net == "residual_mlp":
        rules["DFA, as in the study"] = make(DFA, **STUDY)
        rules["FrozenUnits"] = make(FrozenUnits, frozen=["blocks.*"])
    return rules


def rule_step(rule: CreditRule) -> Step:
    """The rule's own work: surrogate, backward, clipping, optimizer."""
    optimizer = rule.configure_optimizers()

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        _, scalar = rule.surrogate(batch)
        scalar.backward()
        rule.on_before_optimizer_step(optimizer)
        optimizer.step()

    return step


def plain_step(net: nn.Module, compile: bool = False) -> Step:
    """Backpropagation of the same net, without lit_credit."""
    optimizer = fused_adamw(net.parameters())

    def loss(x: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(net(x).flatten(0, -2), target.flatten())

    run = torch.compile(loss) if compile else loss

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        run(*batch).backward()
        optimizer.step()

    return step


def make_batches(net: str, batch_size: int, count: int = 4) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    if net == "gpt":
        size = (count, 2, batch_size, 64)
        return [(x, y) for x, y in torch.randint(65, size, generator=generator)]
    shape = {"residual_mlp": (3072,), "mlp": (784,), "energy_mlp": (784,)}.get(net, (3, 32, 32))
    return [
        (
            torch.randn(batch_size, *shape, generator=generator),
            torch.randint(10, (batch_size,), generator=generator),
        )
        for _ in range(count)
    ]


def peak_bytes(rule: CreditRule, batch: Batch) -> int:
    """The most memory that a forward and a backward hold beyond what they started with."""
    for _ in range(2):  # once to warm up
        rule.zero_grad()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            rule.surrogate(batch)[1].backward()
    records = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    events = sorted(
        (event.start_ns(), event.nbytes()) for event in records if event.name() == "[memory]"
    )
    held = peak = 0
    for _, size in events:
        held += size
        peak = max(peak, held)
    return peak


def report_rules(options: argparse.Namespace) -> None:
    batches = make_batches(options.net, options.batch_size)
    rules = chosen_rules(options)
    torch.manual_seed(0)
    steps = {"plain PyTorch BP": plain_step(NETS[options.net](options.depth))}
    if options.compile:
        steps["plain PyTorch BP, compiled"] = plain_step(NETS[options.net](options.depth), True)
    steps |= {name: rule_step(rule) for name, rule in rules.items()}

    def repeated(step: Step) -> Callable[[], None]:
        return lambda: [step(batches[i % len(batches)]) for i in range(options.steps)] and None

    seconds = time_rounds({name: repeated(step) for name, step in steps.items()}, options.rounds)
    if options.times_only or options.compile:
        bases = [name for name in steps if name in BASES]
        print(f"{'rule':34}{'ms':>8}" + "".join(f"{'to ' + BASES[b]:>14}" for b in bases))
        for name in steps:
            ms = 1e3 * statistics.median(seconds[name]) / options.steps
            ratios = "".join(f"{ratio(seconds, name, base):14.3f}" for base in bases)
            print(f"{name:34}{ms:8.2f}{ratios}")
        return
    (large,) = make_batches(options.net, options.memory_batch_size, count=1)
    memory = {name: peak_bytes(rule, large) for name, rule in rules.items()}
    memory["plain PyTorch BP"] = memory["BP"]
    print(f"{'rule':34}{'ms':>8}{'to plain':>10}{'to BP':>8}{'peak MB':>9}{'to BP':>8}")
    for name in steps:
        ms = 1e3 * statistics.median(seconds[name]) / options.steps
        print(
            f"{name:34}{ms:8.2f}{ratio(seconds, name, 'plain PyTorch BP'):10.3f}"
            f"{ratio(seconds, name, 'BP'):8.3f}{memory[name] / 1e6:9.2f}"
            f"{memory[name] / memory['BP']:8.2f}"
        )
    for name, rule in rules.items():
        if isinstance(rule, BlockFA | DFA):
            matrices = [*rule.feedback.buffers(), *rule.feedback.parameters()]  # some B learn
            numbers = sum(matrix.numel() for matrix in matrices)
            own = sum(weight.numel() for weight in rule.net.parameters())
            print(f"{name:34} B {4 * numbers / 1e6:9.2f} MB, {numbers / own:.3f} of the weights")


def chosen_rules(options: argparse.Namespace) -> dict[str, CreditRule]:
    """The rules that take part, and, if asked for, each of them compiled."""
    rules = make_rules(options.net, options.depth, options.dense)
    if options.compile:
        compiled = make_rules(options.net, options.depth, options.dense, compile=True)
        rules = {
            title: rule
            for name in rules
            for title, rule in ((name, rules[name]), (f"{name}, compiled", compiled[name]))
            if not (title.endswith("compiled") and rule.compile_options is None)
        }
    if options.rules:
        wanted = {*options.rules, *(f"{name}, compiled" for name in options.rules)}
        rules = {name: rule for name, rule in rules.items() if name in wanted}
    return rules


def parser_of(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    """What the benchmarks of rules and of callbacks can both be told."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0] if doc else None)
    parser.add_argument("--net", choices=list(NETS), default="residual_mlp")
    parser.add_argument("--depth", type=int, default=4, help="blocks, or layers of the MLP")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def main(args: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, rounds=30)
    parser.add_argument("--memory-batch-size", type=int, default=4096)
    parser.add_argument("--dense", action="store_true", help="also BlockFA with dense maps")
    parser.add_argument("--compile", action="store_true", help="also compiled; times only")
    parser.add_argument(
        "--rules", nargs="*", metavar="RULE", help="names of the table; all if none"
    )
    parser.add_argument("--times-only", action="store_true", help="no memory")
    parser.add_argument("--steps", type=int, default=10, help="steps in a round")
    options = parser.parse_args(args)
    begin(options.threads, options.rounds)
    report_rules(options)


if __name__ == "__main__":
    main()
