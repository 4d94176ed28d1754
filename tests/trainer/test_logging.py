"""Scalars and hyperparameters to loggers, and what the Trainer knows."""

import math
from types import SimpleNamespace

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_credit.trainer.logging import declare_metrics, log_hyperparameters, log_scalars
from lit_credit.trainer.trainer import callbacks_of, is_fast_dev_run, logger_due, run_folder
from tests.support import trainer


@pytest.mark.parametrize(("every", "due"), [(1, [1, 2, 3, 4]), (2, [2, 4]), (5, [])])
def test_a_step_is_due_when_lightning_would_log_it(every, due):
    def at(step):
        return SimpleNamespace(global_step=step, log_every_n_steps=every)

    assert [step for step in range(1, 5) if logger_due(at(step))] == due


def test_only_finite_scalars_are_written(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    t = SimpleNamespace(loggers=[logger])
    log_scalars(t, {"a": 1.0, "b": math.nan, "c": math.inf}, step=3)
    log_scalars(t, {"b": math.nan}, step=4)
    logger.save()
    assert (tmp_path / "metrics.csv").read_text().split() == ["a,step", "1.0,3"]


def test_hyperparameters_are_declared_with_their_metrics(tmp_path):
    board = TensorBoardLogger(tmp_path / "board", name="", version="", default_hp_metric=False)
    csv = CSVLogger(tmp_path / "csv", name="", version="")
    owner = SimpleNamespace(loggers=[board, csv], max_epochs=3)
    module = SimpleNamespace(hparams={"lr": 0.1}, trainer=owner)
    log_hyperparameters(module)
    declare_metrics(module, ["hp/accuracy"])
    board.experiment.flush()
    csv.save()
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    assert "hp/accuracy" in events.Tags()["scalars"]
    assert "lr: 0.1" in (tmp_path / "csv" / "hparams.yaml").read_text()


def test_the_folder_of_a_run(tmp_path):
    callback = Callback()
    t = trainer(tmp_path, callback, logger="csv")
    assert run_folder(t) == tmp_path
    assert not is_fast_dev_run(t)
    assert callback in callbacks_of(t)
    trial = trainer(tmp_path, logger="csv", fast_dev_run=True)
    assert is_fast_dev_run(trial)
    assert run_folder(trial) is None
