"""One run of a sweep, in a process of its own."""

import contextlib
import io
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_credit import __main__, cli
from lit_credit.callbacks import MetricHistory
from lit_credit.sweep.grid import Point
from lit_credit.utils.trainer import callbacks_of

__all__ = ["Cell", "asked_configuration", "run_cell"]

_ABSENT = "nothing"


@dataclass(frozen=True)
class Cell:
    """A point of the grid with a seed, and where it is run."""

    name: str
    point: Point
    seed: int
    folder: Path
    words: list[str]
    """What follows ``lit-credit fit``."""
    asked: str
    """The full configuration as YAML, apart from where it is run."""
    cwd: Path

    @property
    def log(self) -> Path:
        """All that the run printed."""
        return self.folder / "log.txt"

    def result(self) -> dict[str, Any] | None:
        """What the finished run wrote, or None."""
        try:
            return dict(json.loads((self.folder / "result.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def refuse_another(self) -> None:
        """Check that what the folder holds is of the run that is asked for, if it is of any use.

        Raises:
            ValueError: if it is of another configuration.
        """
        if self.result() is None and not self.has_checkpoint():
            return
        text = (self.folder / "asked.yaml").read_text(encoding="utf-8")
        if text == self.asked:
            return
        key, was, now = _first_difference(yaml.safe_load(text), yaml.safe_load(self.asked))
        raise ValueError(
            f"cell {self.name}: {str(self.folder)!r} holds a run with {key}: {was}, and {now} is "
            "asked for. Give another --out, or remove that folder."
        )

    def prepare(self) -> None:
        """Make the folder; what an unfinished run without a checkpoint left in it is removed."""
        if (self.folder / "asked.yaml").exists() and not self.has_checkpoint():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "asked.yaml").write_text(self.asked, encoding="utf-8")

    def has_checkpoint(self) -> bool:
        """Whether the run can be resumed."""
        return any(self.folder.rglob("*.ckpt"))


def asked_configuration(words: list[str]) -> dict[str, Any]:
    """The configuration that ``lit-credit fit`` makes of ``words``.

    Raises:
        ValueError: if it refuses them, with its reason in one line.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code: Any = cli.main(["fit", *words, "--print_config"])
        except SystemExit as exit_:
            code = exit_.code
    if code:
        raise ValueError(_reason(err.getvalue()))
    config: dict[str, Any] = yaml.safe_load(out.getvalue())
    if not config["model"]:
        raise ValueError("no rule. Name one in a --config, or in the grid: `model.class_path`.")
    return config


def run_cell(cell: Cell) -> None:
    """Run or resume the cell; must be called in a process that does nothing else.

    What the process prints goes to the cell's log from then on. The result is written last.
    """
    os.chdir(cell.cwd)
    cell.prepare()
    with cell.log.open("ab") as log:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
    words = ["fit", *cell.words, "--trainer.default_root_dir", str(cell.folder)]
    if cell.has_checkpoint():
        words += ["--ckpt_path", "last"]
    sys.argv = [str(__main__.__file__), *words]  # which Lightning calls for further ranks
    start = time.perf_counter()
    trainer = cli.run(words).trainer
    seconds = time.perf_counter() - start
    histories = [c.history.rows for c in callbacks_of(trainer) if isinstance(c, MetricHistory)]
    last = next((rows[-1] for rows in histories if rows), None) or {
        "epoch": trainer.current_epoch,
        "step": trainer.global_step,
        "values": {key: float(value) for key, value in trainer.callback_metrics.items()},
    }
    result = {"seconds": seconds, **{key: last[key] for key in ("epoch", "step", "values")}}
    scratch = cell.folder / "result.partial"
    scratch.write_text(json.dumps(result), encoding="utf-8")
    os.replace(scratch, cell.folder / "result.json")


def _reason(message: str) -> str:
    """The parser's error without the types that it has tried on the way."""
    noise = ("Does not validate", "Subtypes:", "Errors:", "- Expected a <class 'None", "Given val")
    lines = [line.strip() for line in message.rpartition("error: ")[2].splitlines()]
    return " ".join(
        line.removeprefix("- ") for line in lines if line and not line.startswith(noise)
    )


def _first_difference(was: Any, now: Any, at: str = "") -> tuple[str, Any, Any]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in {**was, **now}:
            pair = was.get(key, _ABSENT), now.get(key, _ABSENT)
            if pair[0] != pair[1]:
                return _first_difference(*pair, f"{at}.{key}" if at else str(key))
    return at, was, now
