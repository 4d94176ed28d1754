"""One run of a sweep, in a process of its own."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer

import lit_credit
from lit_credit.callbacks import MetricHistory
from lit_credit.cli.boundary import report
from lit_credit.cli.configuration import fit_read
from lit_credit.cli.fit import LitCreditCLI, run
from lit_credit.cli.own_modules import find_own_modules
from lit_credit.cli.sweep.cell import Cell
from lit_credit.cli.sweep.cost import Cost
from lit_credit.cli.sweep.grid import as_word, leaf_options
from lit_credit.cli.sweep.handed import from_text
from lit_credit.former_names import former_names
from lit_credit.protocols import DiagnosticProtocol, asked
from lit_credit.runs.history import History
from lit_credit.runs.lock import hold, hold_folder
from lit_credit.trainer.hyperparameters import differing
from lit_credit.trainer.trainer import callbacks_of
from lit_credit.trainer.watched import is_measured

__all__ = ["run_cell"]

_PATIENCE = 30.0
"""Seconds to wait for the folder; longer than the grace in ``lit_credit.cli.sweep.executors``."""


def run_cell(cell: Cell) -> None:
    """Run or resume the cell. Call it only in a process that does nothing else.

    From then on the output of the process goes to the cell's log. The result is written last.
    """
    os.chdir(cell.cwd)
    find_own_modules(cell.words)  # a worker of Ray has a path of its own
    # After a sweep was killed, its cells end by themselves a moment later: wait for them.
    lock = cell.folder.with_name(f"{cell.folder.name}.cell.lock")
    with hold(lock, str(cell.folder), _PATIENCE):
        with hold_folder(cell.folder, _PATIENCE):  # then the run itself holds it
            cell.prepare()
        _run(cell)


def _run(cell: Cell) -> None:
    with cell.log.open("ab") as log:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
    own = {"seed_everything": cell.seed, "trainer.default_root_dir": str(cell.folder)}
    if (checkpoint := cell.checkpoint()) is not None:
        own["ckpt_path"] = str(checkpoint)
    words = [*cell.words, *(f"--{name}={as_word(value)}" for name, value in own.items())]
    # Lightning runs this command line for further ranks.
    sys.argv = [str(Path(lit_credit.__file__).with_name("__main__.py")), "fit", *words]
    start, cost = time.perf_counter(), Cost()
    try:
        with differing(cell.varied, leaf_options(cell.point.overrides)):
            trainer = _fit(cell.read, own, words).trainer
    except Exception as error:
        sys.exit(report(error))  # the log ends in the line that `fit` would print
    seconds = time.perf_counter() - start
    progress = {"epoch": trainer.current_epoch, "step": trainer.global_step}
    values = _last_values(trainer)
    cell.finish({"seconds": seconds, **cost.measured(), **progress, "values": values})


def _fit(read: str | None, own: Mapping[str, Any], words: Sequence[str]) -> LitCreditCLI:
    """Run ``fit``; the words are read again only if what the plan has read cannot be had."""
    if read is None:
        return run(["fit", *words])
    found = from_text(read)
    for name, value in own.items():
        found.namespace.fit[name] = value
    return fit_read(found, words)


def _last_values(trainer: Trainer) -> dict[str, float]:
    """Metrics of validation and test, or else all logged; each diagnostic's last measurement."""
    histories = [
        history
        for callback in callbacks_of(trainer)
        if isinstance(history := asked(callback, DiagnosticProtocol.history, None), History)
        and history.rows
    ]
    last = [history.rows[-1] for history in histories]
    last.sort(key=lambda row: row["name"] != MetricHistory.name)
    metrics = trainer.callback_metrics.items()
    found = {k: float(v) for k, v in metrics if not is_measured(trainer, k)}
    if last and last[0]["name"] == MetricHistory.name:  # it was validated
        validated = last.pop(0)["values"]
        found = validated | {k: v for k, v in found.items() if k.startswith("test/")}
    return found | {tag: value for row in last for tag, value in row["values"].items()}


if not TYPE_CHECKING:
    __getattr__ = former_names("lit_credit.sweep.run")
