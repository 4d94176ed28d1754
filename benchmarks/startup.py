"""CPU time that ``lit-credit`` takes to answer, beside that of another version.

    python benchmarks/startup.py [--old TREE] [--rounds 5]

Each command runs in a process of its own, with one thread; time is user plus system of that
process. With ``--old``, a checkout of another version, the two take turns, so that a load on the
machine meets both alike.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

NEW = Path(__file__).parents[1]
CONFIG = """\
model:
  class_path: {rule}
  init_args:
    net:
      class_path: MLP
      init_args: {{in_features: 64, hidden: [32]}}
    task: Classification
data:
  class_path: Digits
  init_args: {{{argument}: 128}}
"""
MAIN = ["-m", "lit_credit"]
FIT = [*MAIN, "fit", "--config"]
CASES = {
    "import lit_credit.cli": ["-c", "import lit_credit.cli"],
    "--help": [*MAIN, "--help"],
    "--version": [*MAIN, "--version"],
    "completion bash": [*MAIN, "completion", "bash"],
    "fti (unknown command)": [*MAIN, "fti"],
    "fit --help": [*MAIN, "fit", "--help"],
    "fit: wrong file": [*FIT, "nowhere.yaml"],
    "fit: wrong class": [*FIT, "class.yaml"],
    "fit: wrong argument": [*FIT, "argument.yaml"],
    "fit --print_config": [*FIT, "right.yaml", "--print_config"],
    "compare: wrong path": [*MAIN, "compare", "nowhere", "--out", "out"],
    "sweep --help": [*MAIN, "sweep", "--help"],
}


def seconds(tree: Path, words: list[str], folder: str) -> float:
    """CPU time of one command."""
    env = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    before = os.times()
    subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, check=False)
    after = os.times()
    user = after.children_user - before.children_user
    return user + after.children_system - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--old", type=Path, help="checkout of another version")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    trees = [NEW] if options.old is None else [options.old.resolve(), NEW]
    print(f"{'':24}{'CPU s' if len(trees) == 1 else '  old    new  ratio'}")
    with tempfile.TemporaryDirectory() as folder:
        for name, rule, argument in (
            ("right", "BP", "batch_size"),
            ("class", "BPP", "batch_size"),
            ("argument", "BP", "batch_sizes"),
        ):
            Path(folder, f"{name}.yaml").write_text(CONFIG.format(rule=rule, argument=argument))
        for tree in trees:  # compile, and warm the file cache
            seconds(tree, CASES["fit --print_config"], folder)
        for case, words in CASES.items():
            rounds = [
                [seconds(tree, words, folder) for tree in trees] for _ in range(options.rounds)
            ]
            found = [median(column) for column in zip(*rounds, strict=True)]
            ratio = f"{found[-1] / found[0]:7.2f}" if len(found) == 2 else ""
            print(f"{case:24}{''.join(f'{value:6.2f} ' for value in found)}{ratio}", flush=True)


if __name__ == "__main__":
    main()
