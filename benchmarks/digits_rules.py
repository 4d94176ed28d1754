"""How well each rule learns digits, and what a run of it takes.

    python benchmarks/digits_rules.py --seeds 1 2 3 4 5 --folder runs/digits_rules

Trains every configuration of configs/rules that takes the data set Digits, without its diagnostics,
and prints the accuracy on the test images after the last epoch, mean and sample standard deviation
over seeds, and the median CPU time of a run: start, training and one validation an epoch. Runs that
lie in the folder already are read, not repeated.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from pathlib import Path

import yaml
from timing import begin

from lit_credit.cli import main as lit_credit
from lit_credit.runs.history import read_history

CONFIGS = Path(__file__).parents[1] / "configs" / "rules"
CALLBACKS = '[{"class_path": "lit_credit.callbacks.MetricHistory"}]'


def on_digits() -> dict[str, Path]:
    """The configurations that train on digits, by name."""
    found = {path.stem: path for path in sorted(CONFIGS.glob("*.yaml"))}
    return {
        name: path
        for name, path in found.items()
        if yaml.safe_load(path.read_text())["data"]["class_path"] == "Digits"
    }


def run(config: Path, seed: int, folder: Path, more: list[str]) -> tuple[float, float]:
    """The last accuracy of a run, and its CPU seconds."""
    done = folder / "result.json"
    if not done.exists():
        words = ["fit", "--config", str(config), "--seed_everything", str(seed)]
        words += ["--trainer.callbacks", CALLBACKS, "--trainer.default_root_dir", str(folder)]
        words += ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", *more]
        start, printed = time.process_time(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            status = lit_credit(words)
        if status != 0:
            raise SystemExit(f"{config} ended with {status}:\n{printed.getvalue()}")
        seconds = time.process_time() - start
        (history,) = folder.glob("*/*/metrics.jsonl")
        accuracy = read_history(history)[-1]["values"]["val/accuracy"]
        done.write_text(json.dumps([accuracy, seconds]))
    accuracy, seconds = json.loads(done.read_text())
    return accuracy, seconds


def main() -> None:
    """Parse the arguments, and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    configs = on_digits()
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--configs", nargs="+", choices=list(configs), default=list(configs))
    parser.add_argument("--folder", type=Path, help="keep the runs here")
    parser.add_argument("--epochs", type=int, help="other than the configurations have")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    begin(options.threads, len(options.seeds))
    with tempfile.TemporaryDirectory() as temporary:
        report(options, configs, options.folder or Path(temporary))


def report(options: argparse.Namespace, configs: dict[str, Path], folder: Path) -> None:
    """Train into a folder, and print a line a configuration."""
    more = [] if options.epochs is None else ["--trainer.max_epochs", str(options.epochs)]
    print(f"{'configuration':28}{'n':>3}  {'accuracy':14}{'CPU s':>7}")
    for name in options.configs:
        results = [
            run(configs[name], seed, folder / name / str(seed), more) for seed in options.seeds
        ]
        accuracies, seconds = zip(*results, strict=True)
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else float("nan")
        mean = statistics.mean(accuracies)
        text = f"{mean:.3f} ± {spread:.3f}"
        print(f"{name:28}{len(results):3}  {text:14}{statistics.median(seconds):7.1f}", flush=True)


if __name__ == "__main__":
    main()
