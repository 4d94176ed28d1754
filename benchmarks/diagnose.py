"""What ``diagnose`` costs on Hugging Face's GPT-2 in memory: CPU time, and peak memory beside it.

    python benchmarks/diagnose.py

Each diagnostic is at its defaults, in a process of its own, and so is a forward and backward pass
of the same batch. Time is CPU time of the process, with its proofs and its figure. Memory is the
high-water mark of what is resident, above what is resident with the net before the call. The last
line is one call with all diagnostics.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from typing import Any

import torch
from instrument import forget_peak, resident
from transformers import GPT2Config, GPT2LMHeadModel

from lit_credit import callbacks, diagnose

NAMES = (
    "ResidualNorms",
    "GradientNorms",
    "AttentionMaps",
    "HeadBehaviour",
    "SoftmaxJacobian",
    "CircuitMatching",
)
STEP = "forward and backward"


def measured(names: list[str], options: argparse.Namespace) -> dict[str, float]:
    """Seconds and GB of one call, or of one training pass."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    config = GPT2Config(n_layer=options.layers, n_head=options.heads, n_embd=options.width)
    net = GPT2LMHeadModel(config)
    tokens = torch.randint(config.vocab_size, (options.rows, options.length))
    batch: dict[str, Any] = {"input_ids": tokens, "labels": tokens}
    before = resident("VmRSS")
    forget_peak()
    start = time.process_time()
    if names == [STEP]:
        net(**batch).loss.backward()
    else:
        diagnose(net, [getattr(callbacks, name)() for name in names], batch)
    return {"seconds": time.process_time() - start, "gb": resident("VmHWM") - before}


def in_process(names: list[str], args: list[str]) -> dict[str, float]:
    """The same in a process of its own, whose allocator gives back what is freed."""
    given = {"MALLOC_MMAP_THRESHOLD_": "131072", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, *args, "--child", *names]
    done = subprocess.run(command, env=os.environ | given, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"{', '.join(names)}: {done.stderr[-400:]}")
    found: dict[str, float] = json.loads(lines[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=1, help="processes per line; the median")
    parser.add_argument("--names", nargs="*", default=list(NAMES), metavar="CALLBACK")
    parser.add_argument("--child", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measured(options.child, options)))
        return
    sizes = ("rows", "length", "layers", "heads", "width")
    args = [word for size in sizes for word in (f"--{size}", str(getattr(options, size)))]
    lines = [[STEP], *([name] for name in options.names), options.names]
    found: list[list[dict[str, float]]] = [[] for _ in lines]
    for _ in range(options.rounds):
        for place, names in enumerate(lines):
            found[place].append(in_process(names, args))
    step = sorted(run["seconds"] for run in found[0])[options.rounds // 2]
    print(f"{'':22}{'CPU s':>8}{'steps':>8}{'GB':>8}")
    for names, runs in zip(lines, found, strict=True):
        seconds = sorted(run["seconds"] for run in runs)[options.rounds // 2]
        gb = max(run["gb"] for run in runs)
        name = names[0] if len(names) == 1 else f"all {len(names)} in one call"
        print(f"{name:22}{seconds:8.1f}{seconds / step:8.2f}{gb:8.2f}", flush=True)


if __name__ == "__main__":
    main()
