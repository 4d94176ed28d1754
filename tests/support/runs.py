"""Trainings of a few steps, and what they leave in files."""

import io
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support.data import Data, ValidatedData, train_loader, val_loader


def quiet_trainer(**kwargs: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**(defaults | kwargs))


def trainer(folder, *callbacks, logger: Any = "tensorboard", **kwargs):
    loggers = {
        "tensorboard": lambda: TensorBoardLogger(folder, name="", version=""),
        "csv": lambda: CSVLogger(folder, name="", version=""),
    }
    defaults = {
        "accelerator": "cpu",
        "max_epochs": 3,
        "default_root_dir": folder,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "logger": loggers[logger]() if isinstance(logger, str) else logger,
        "callbacks": list(callbacks),
    }
    return Trainer(**(defaults | kwargs))


def fit(folder, module, *callbacks, ckpt_path=None, loaders=None, **kwargs):
    run = trainer(folder, *callbacks, **kwargs)
    train, val = loaders or (train_loader(), val_loader())
    data = Data(train) if val is None else ValidatedData(train, val)
    run.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return run


def events(folder):
    """What TensorBoard reads in a folder."""
    guidance = {"images": 0, "scalars": 0, "tensors": 0}
    return EventAccumulator(str(folder), size_guidance=guidance).Reload()


def same_state(a, b):
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def measured(callback, module, data=None):
    """The values of a diagnostic of weights or contexts, on a module that is not trained."""
    run = trainer(None, logger=False)
    run.datamodule = data
    module.eval()
    callback.prepare(run, module)
    callback.begin(run, module)
    with torch.no_grad():
        return callback.measure(module)


def drawn(figure):
    """The figure, with everything in its place."""
    figure.savefig(io.BytesIO(), format="png", dpi=30)
    return figure


class Interrupted(Exception):
    """Raised in the middle of something."""
