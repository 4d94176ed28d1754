"""Runs that save a checkpoint wherever a diagnostic may measure, and their rows."""

import json
from pathlib import Path

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_credit.diagnosis import diagnose
from tests import support


class AtStart(Callback):
    """Saves the state before the first step."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def on_train_start(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / "step=0.ckpt")


def saves(folder, every_n_train_steps=3, **kwargs):
    """Callbacks that save at step 0, after every so many steps, and after every epoch."""
    folder, options = Path(folder), {"save_top_k": -1, **kwargs}
    by_steps = ModelCheckpoint(
        folder, filename="{step}", every_n_train_steps=every_n_train_steps, **options
    )
    by_epochs = ModelCheckpoint(
        folder / "epochs", filename="{step}", save_on_train_epoch_end=True, **options
    )
    return [AtStart(folder), by_steps, by_epochs]


def trained(folder, module, diagnostics, *callbacks, data=None, **kwargs):
    """Train and save; the rows by diagnostic, as text."""
    options = {"logger": False, "max_epochs": 2, "enable_checkpointing": True} | kwargs
    run = support.trainer(folder, *diagnostics, *saves(folder / "saved"), *callbacks, **options)
    data = data or support.ValidatedData(support.train_loader(), support.val_loader())
    run.fit(module, datamodule=data)
    return rows(diagnostics)


def rows(diagnostics):
    """The rows of diagnostics by the stems of their files."""
    return {d.stem: d.history.rows for d in diagnostics}


def found(folder, module, diagnostics, data=None, **kwargs):
    """The rows of a diagnosis over the checkpoints of :func:`trained`."""
    data = data or support.ValidatedData(support.train_loader(), support.val_loader())
    result = diagnose(module, diagnostics, data, checkpoints=folder / "saved", **kwargs)
    return {name: finding.rows for name, finding in result.items()}


def text(row, without=()):
    """A row as it is compared, to the bit: without the proof, which only a first row has."""
    kept = {tag: x for tag, x in row["values"].items() if not tag.startswith(tuple(without))}
    return json.dumps({**{name: row[name] for name in ("step", "epoch", "name")}, "values": kept})


def assert_equal(run, again, without=()):
    """Every row of the run is a row of the diagnosis, but for tags that begin with `without`."""
    assert run.keys() == again.keys()
    for name, rows_of_run in run.items():
        by_step = {row["step"]: text(row, without) for row in again[name]}
        assert rows_of_run
        for row in rows_of_run:
            assert by_step.get(row["step"]) == text(row, without), (name, row["step"])
