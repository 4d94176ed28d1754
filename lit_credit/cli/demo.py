"""The command ``lit-credit demo``: BP, FA and DFA side by side on scikit-learn's digits."""

import os
import shlex
import shutil
import subprocess
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from lit_credit.cli import compare
from lit_credit.cli.arguments import ShortErrorArguments
from lit_credit.cli.shipped import shipped_file
from lit_credit.runs.files import check_folder
from lit_credit.runs.lock import hold_folder
from lit_credit.runs.yaml_files import read_yaml
from lit_credit.utils.paths import local_path

__all__ = ["main", "parser"]

_RULES = ("bp", "fa", "dfa")
_LINES = 20
"""Last lines of the log of a run that failed, which are shown."""
_DESCRIPTION = """Train BP, FA and DFA on scikit-learn's digits, and compare them.

The runs take about five minutes on two CPU cores, and end in a table, a figure and the command
that opens TensorBoard. The same command continues after an interruption. Further options, such as
`--trainer.max_epochs 5`, apply to every run."""


@dataclass(frozen=True)
class _Run:
    rule: str
    seed: int
    out: Path
    words: Sequence[str]

    @property
    def name(self) -> str:
        return f"{self.rule}, seed {self.seed}"

    @property
    def log(self) -> Path:
        return self.out / f"{self.rule}.{self.seed}.log"

    @property
    def done(self) -> Path:
        """A file with the further words, which is written when the run has ended well."""
        return self.out / f"{self.rule}.{self.seed}.done"

    @property
    def is_done(self) -> bool:
        return self.done.is_file() and self.done.read_text() == shlex.join(self.words)

    @property
    def length(self) -> str:
        """How long it trains; further words may say otherwise."""
        epochs = read_yaml(_config(self.rule))["trainer"]["max_epochs"]
        return "" if self.words else f" {epochs} epochs"

    def command(self) -> list[str]:
        """A run that was interrupted goes on from its last checkpoint."""
        config = _config(self.rule)
        fit = [sys.executable, "-m", "lit_credit", "fit", "--config", str(config)]
        fit += ["--seed_everything", str(self.seed), "--trainer.default_root_dir", str(self.out)]
        fit += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
        return [*fit, "--ckpt_path", "last", *self.words]


def _config(rule: str) -> Path:
    name = f"residual_explosion/{rule}.yaml"
    found = shipped_file(name)
    if found is None:
        raise ValueError(f"{name} is missing: this copy of lit_credit has no configurations.")
    return found


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 1 if a run failed, 2 after wrong arguments.

    Args:
        args: the words after ``lit-credit demo``; by default the process's arguments.
    """
    options, words = parser().parse_known_args(args)
    try:
        if options.jobs < 1:
            raise ValueError(f"--jobs: {options.jobs}. Expected a number of runs, 1 or more.")
        out = Path(local_path(options.out, "--out"))
        check_folder(out, "Give another --out.")
        seeds = list(dict.fromkeys(options.seeds))
        runs = [_Run(rule, seed, out, words) for rule in _RULES for seed in seeds]
        _config(_RULES[0])
        with hold_folder(out):
            if not _train(runs, options.jobs):
                return 1
    except (ValueError, OSError) as error:
        print(f"lit-credit demo: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    code = compare.main([str(out), "--out", str(out)])
    if code == 0:
        print(
            f"\nFigure:      {out}/comparison.png\nTable:       {out}/comparison.csv\n"
            f"TensorBoard: {_tensorboard()} --logdir {shlex.quote(str(out))}"
        )
    return code


def _train(runs: Sequence[_Run], jobs: int) -> bool:
    """Train what is not done; whether all has ended well."""
    todo = [run for run in runs if not run.is_done]
    if todo:
        seeds = len(runs) // len(_RULES)
        print(
            f"Training BP, FA and DFA with {seeds} seed{'s' * (seeds > 1)} each, {jobs} "
            f"run{'s' * (jobs > 1)} at a time.",
            flush=True,
        )
    failed = Event()

    def train(run: _Run) -> None:
        if failed.is_set():
            return
        print(f"  {run.name}: training{run.length}", flush=True)
        if _ended_well(run):
            done = sum(run.is_done for run in runs)
            print(f"  {run.name}: done ({done} of {len(runs)})", flush=True)
        else:
            failed.set()

    with ThreadPoolExecutor(jobs) as pool:
        try:
            list(pool.map(train, todo))
        except BaseException:  # Ctrl-C reaches the runs too
            failed.set()
            raise
    return not failed.is_set()


def _ended_well(run: _Run) -> bool:
    """Train; show the end of the log if that fails."""
    with run.log.open("wb") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(
            run.command(), stdout=log, stderr=subprocess.STDOUT, env=environment, check=False
        )
    if ended.returncode == 0:
        run.done.write_text(shlex.join(run.words))
        return True
    lines = run.log.read_text(errors="replace").splitlines()[-_LINES:]
    print("\n".join([*lines, f"  {run.name}: failed, see {run.log}"]), file=sys.stderr)
    return False


def _tensorboard() -> str:
    """How to call TensorBoard: by its path, unless the shell finds the same program."""
    own = Path(sys.executable).with_name("tensorboard")
    if not own.exists() or shutil.which("tensorboard") == str(own):
        return "tensorboard"
    here = own.is_relative_to(Path.cwd())
    return shlex.quote(str(own.relative_to(Path.cwd()) if here else own))


def parser() -> ShortErrorArguments:
    """The parser of the command; further words go to ``fit``."""
    made = ShortErrorArguments(
        "lit-credit demo",
        description=_DESCRIPTION,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("--out", default="runs/demo", metavar="DIR", help="folder of all results (runs/demo)")
    add("--seeds", type=int, nargs="+", default=[42, 123, 456], metavar="N", help="(42 123 456)")
    add("--jobs", type=int, default=2, metavar="N", help="number of parallel runs (2)")
    return made
