"""What `lit-credit compare` takes for many runs: seconds, CPU seconds and peak memory.

    python benchmarks/compare.py --groups 40 --seeds 5 --rows 5000 --folder runs/compare

Writes runs of made-up numbers, once: groups of five rules and as many learning rates as needed,
each run with four histories of ROWS rows (metrics, residual norms, gradient norms, credit
alignment).
Then runs the command in a process of its own, and prints what it took.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml

RULES = ("BP", "FA", "BlockFA", "DFA", "FrozenUnits")
LAYERS = 5
HISTORIES = {
    "metrics": ["val/accuracy", "val/loss"],
    "residual_norms": [f"residual/norm/L{i:02}" for i in range(LAYERS)],
    "gradient_norms": [f"gradient/norm/L{i:02}" for i in range(LAYERS)],
    "credit_alignment": [f"credit/cosine/L{i:02}" for i in range(LAYERS - 1)],
}


def config(rule: str, lr: float, seed: int, rows: int) -> dict[str, object]:
    net = {"class_path": "lit_credit.models.ResidualMLP", "init_args": {"width": 64}}
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": lr}}
    return {
        "seed_everything": seed,
        "trainer": {"max_epochs": rows - 1},
        "model": {
            "class_path": f"lit_credit.rules.{rule}",
            "init_args": {"net": net, "optimizer": optimizer},
        },
        "data": {"class_path": "lit_credit.datamodules.Digits", "init_args": {"seed": seed}},
    }


def write_run(folder: Path, rule: str, lr: float, seed: int, rows: int) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config(rule, lr, seed, rows)))
    rng = np.random.default_rng([RULES.index(rule), seed])
    level = RULES.index(rule) / 10 + abs(np.log10(lr) + 2.5) / 10
    for name, tags in HISTORIES.items():
        with (folder / f"{name}.jsonl").open("w") as file:
            for epoch in range(rows):
                numbers = (1 - np.exp(-epoch / rows * 9)) * (1 - level) + rng.random(len(tags)) / 50
                values = dict(zip(tags, numbers.tolist(), strict=True))
                row = {"step": 12 * epoch, "epoch": epoch, "name": name, "values": values}
                file.write(json.dumps(row) + "\n")


def write_runs(folder: Path, groups: int, seeds: int, rows: int) -> None:
    rates = np.logspace(-4, -1, -(-groups // len(RULES)))
    for index in range(groups):
        rule, lr = RULES[index % len(RULES)], float(rates[index // len(RULES)])
        for seed in range(1, seeds + 1):
            write_run(folder / f"{rule}_{lr:.2g}" / f"seed_{seed}", rule, lr, seed, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--folder", type=Path, default=Path("compare_runs"))
    parser.add_argument("--table-only", action="store_true", help="without figures")
    options = parser.parse_args()
    runs = options.folder / f"{options.groups}x{options.seeds}x{options.rows}"
    if not runs.exists():
        write_runs(runs, options.groups, options.seeds, options.rows)
    command = [sys.executable, "-m", "lit_credit", "compare", str(runs)]
    if not options.table_only:
        command += ["--out", str(options.folder / "out")]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{options.groups} groups x {options.seeds} seeds x 4 histories of {options.rows} rows")
    cpu, memory = used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20
    print(f"{seconds:.1f} s, {cpu:.1f} CPU s, {memory:.2f} GB")


if __name__ == "__main__":
    main()
