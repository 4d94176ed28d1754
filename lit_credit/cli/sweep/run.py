"""What a sweep does with the command line of one run."""

import contextlib
import io
import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Trainer

import lit_credit
from lit_credit.callbacks import MetricHistory
from lit_credit.cli.boundary import report
from lit_credit.cli.fit import run
from lit_credit.cli.sweep.cell import Cell
from lit_credit.protocols import DiagnosticProtocol, asked
from lit_credit.runs.history import History
from lit_credit.runs.lock import hold_folder
from lit_credit.trainer.trainer import callbacks_of
from lit_credit.trainer.watched import is_measured

__all__ = ["asked_configuration", "run_cell"]

_PATIENCE = 30.0
"""Seconds; see the grace in :mod:`lit_credit.cli.sweep.executors`."""


def asked_configuration(words: list[str]) -> dict[str, Any]:
    """The configuration that ``lit-credit fit`` makes of ``words``.

    Raises:
        ValueError: if it refuses them, with its reason in one line.
        KeyboardInterrupt: if it was stopped.
    """
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run(["fit", *words, "--print_config"])
        except SystemExit as exit_:
            code = exit_.code
        except Exception as error:
            code = report(error)
    if code:
        reason = err.getvalue().rpartition("lit-credit: error: ")[2]
        raise ValueError(reason.partition(" (Options:")[0].strip())
    config: dict[str, Any] = yaml.safe_load(out.getvalue())
    for name in ("on_resume", "init_from"):  # which older sweeps do not know
        if config.get(name) is None:
            config.pop(name, None)
    if not config["model"]:
        raise ValueError("no rule. Name one in a --config, or in the grid: `model.class_path`.")
    return config


def run_cell(cell: Cell) -> None:
    """Run or resume the cell; must be called in a process that does nothing else.

    What the process prints goes to the cell's log from then on. The result is written last.
    """
    os.chdir(cell.cwd)
    # The cells of a sweep that was killed end by themselves, a moment later.
    with hold_folder(cell.folder, patience=_PATIENCE):
        _run(cell)


def _run(cell: Cell) -> None:
    cell.prepare()
    with cell.log.open("ab") as log:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
    words = ["fit", *cell.words, "--trainer.default_root_dir", str(cell.folder)]
    if (checkpoint := cell.checkpoint()) is not None:
        words += ["--ckpt_path", str(checkpoint)]
    # Which Lightning calls for further ranks.
    sys.argv = [str(Path(lit_credit.__file__).with_name("__main__.py")), *words]
    start = time.perf_counter()
    try:
        trainer = run(words).trainer
    except Exception as error:
        sys.exit(report(error))  # the log ends in the line that `fit` would print
    seconds = time.perf_counter() - start
    epoch, step = trainer.current_epoch, trainer.global_step
    values = _last_values(trainer)
    cell.finish({"seconds": seconds, "epoch": epoch, "step": step, "values": values})


def _last_values(trainer: Trainer) -> dict[str, float]:
    """Validation metrics, or else what was logged; then each diagnostic's last measurement."""
    histories = [
        history
        for callback in callbacks_of(trainer)
        if isinstance(history := asked(callback, DiagnosticProtocol.history, None), History)
        and history.rows
    ]
    last = [history.rows[-1] for history in histories]
    last.sort(key=lambda row: row["name"] != MetricHistory.name)
    found: dict[str, float] = {}
    if not last or last[0]["name"] != MetricHistory.name:  # nothing was validated
        metrics = trainer.callback_metrics.items()
        found = {k: float(v) for k, v in metrics if not is_measured(trainer, k)}
    return found | {tag: value for row in last for tag, value in row["values"].items()}
