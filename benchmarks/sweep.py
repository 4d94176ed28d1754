"""Seconds that ``lit-credit sweep`` takes beside training, also beside another version.

    python benchmarks/sweep.py [--old TREE] [--points 500] [--cells 8] [--rounds 3]

Printed are CPU seconds (user plus system): to plan ``--points`` points of five rules that differ in
numbers; to run the command again when all of them have finished, with its imports; and of one cell,
a run of one epoch (23 updates) on digits with validation, checkpoint and events. One thread. With
``--old``, a checkout of another version, the two take turns. Linux only: a cell's time is what the
fork server has waited for.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

NEW = Path(__file__).parents[1]
BASE = """\
model:
  class_path: BP
  init_args:
    task: Classification
    net: {class_path: MLP, init_args: {in_features: 64, hidden: [64, 64, 64]}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1.0e-3, weight_decay: 0.01}}
data: {class_path: Digits, init_args: {batch_size: 64}}
trainer: {accelerator: cpu, max_epochs: 1}
"""
RULES = ["BP", "FA", "DFA", "FrozenUnits", "LocalLosses"]
SCRIPT = """\
import json, os, sys, time
from multiprocessing import forkserver
from pathlib import Path
from lit_credit.cli.sweep.executors import LocalProcesses, run_all
from lit_credit.cli.sweep.grid import read_grid
from lit_credit.cli.sweep.plan import planned
import lit_credit.cli.fit

def waited_for():
    pid = forkserver._forkserver._forkserver_pid
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")

if __name__ == "__main__":
    task, grid, folder = sys.argv[1:]
    points, seeds = read_grid(grid)
    start = time.process_time()
    cells = planned(points, seeds, ["--config=base.yaml"], Path(folder).resolve())
    found = time.process_time() - start
    if task == "finish":
        for cell in cells:
            cell.prepare()
            cell.finish({"seconds": 1.0, "epoch": 1, "step": 23, "values": {"val/loss": 1.0}})
    if task == "run":
        place = LocalProcesses(1)
        list(run_all(cells[:1], place))  # the server loads
        before = waited_for()
        for cell, trouble in run_all(cells[1:], place):
            assert not trouble, trouble
        found = (waited_for() - before) / (len(cells) - 1)
    print(json.dumps(found))
"""


def python(tree: Path, folder: str, *words: str) -> tuple[float, str]:
    """CPU seconds of one Python process, and what it prints."""
    env = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    before = os.times()
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, check=True
    )
    after = os.times()
    user = after.children_user - before.children_user
    return user + after.children_system - before.children_system, done.stdout


def measured(tree: Path, points: int, cells: int) -> list[float]:
    """CPU seconds to plan and to resume the points, and of one cell."""
    with tempfile.TemporaryDirectory() as folder:
        rates = [round(1e-4 * 1.02**i, 8) for i in range(max(points // len(RULES), 1))]
        lr = "model.init_args.optimizer.init_args.lr"
        grid = {"model.class_path": RULES, lr: rates, "seed_everything": [1]}
        few = {"model.class_path": ["DFA"], lr: [0.001], "seed_everything": list(range(cells + 1))}
        for name, text in {
            "base.yaml": BASE,
            "many.yaml": json.dumps(grid),
            "few.yaml": json.dumps(few),
            "script.py": SCRIPT,
        }.items():
            Path(folder, name).write_text(text)
        plan = json.loads(python(tree, folder, "script.py", "finish", "many.yaml", "many")[1])
        named = ("--config=base.yaml", "--grid=many.yaml", "--out=many.csv")
        again, _ = python(tree, folder, "-m", "lit_credit", "sweep", *named)
        cell = json.loads(python(tree, folder, "script.py", "run", "few.yaml", "few")[1])
        return [plan, again, cell]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--old", type=Path, help="checkout of another version")
    parser.add_argument("--points", type=int, default=500)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    trees = [NEW] if options.old is None else [options.old.resolve(), NEW]
    rounds = [
        [measured(tree, options.points, options.cells) for tree in trees]
        for _ in range(options.rounds)
    ]
    print(f"{'':30}{'CPU s' if len(trees) == 1 else '    old     new'}")
    names = (f"plan {options.points} points", f"{options.points} finished: again", "a cell")
    for row, name in enumerate(names):
        found = [median(r[tree][row] for r in rounds) for tree in range(len(trees))]
        print(f"{name:30}{''.join(f'{value:7.2f} ' for value in found)}", flush=True)


if __name__ == "__main__":
    main()
