"""Checkpoints, early stopping and schedulers that watch what a diagnostic measures."""

import math
import re

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import ReduceLROnPlateau

from lit_credit.callbacks import Diagnostic, MetricHistory
from lit_credit.rules import BP
from lit_credit.runs.history import read_history
from tests import support
from tests.support import fit

KINDS = ["rule", "foreign"]
TAG = "value/count"


class Count(Diagnostic):
    """How many measurements there were: 1 before training, or what ``values`` says."""

    name = "count"
    section = "value"  # as names of validation metrics, it begins with "val"

    def __init__(self, values=None, **kwargs):
        super().__init__(figure=False, **kwargs)
        self.values = values

    def update(self, chunk):
        pass

    def compute(self):
        done = len(self.history.rows)
        return {"count": float(done + 1) if self.values is None else self.values[done]}


class Scheduled(support.Validated):
    """Lightning steps its scheduler."""

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": TAG}}


def module(kind, **kwargs):
    return support.rule(BP, **kwargs) if kind == "rule" else support.Validated()


@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_early_stopping_sees_the_number_of_the_epoch(kind, is_first, tmp_path):
    stop, count = EarlyStopping(TAG, stopping_threshold=2.5, mode="max"), Count()
    callbacks = (stop, count) if is_first else (count, stop)
    trainer = fit(tmp_path, module(kind), *callbacks, max_epochs=5, logger=False)
    # 1 before training, 2 after epoch 0, 3 after epoch 1.
    assert (stop.stopped_epoch, trainer.current_epoch) == (1, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_stops_a_run_unless_early_stopping_is_told_otherwise(kind, tmp_path):
    values = [1.0, math.nan, 3.0, 2.0]
    for check, epochs in ((True, 1), (False, 3)):
        stop = EarlyStopping(TAG, check_finite=check, patience=9)
        trainer = fit(tmp_path / str(check), module(kind), Count(values), stop, logger=False)
        assert trainer.current_epoch == epochs


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_are_named_and_chosen_by_the_number(kind, tmp_path):
    saved = ModelCheckpoint(
        tmp_path / "best",
        monitor=TAG,
        filename=f"{{epoch}}-{{{TAG}:.0f}}",
        auto_insert_metric_name=False,
    )
    count = Count([0.0, 30.0, 10.0, 20.0])
    fit(tmp_path, module(kind), saved, count, enable_checkpointing=True, logger=False)
    assert support.files(tmp_path / "best") == ["1-10.ckpt"]
    assert float(saved.best_model_score) == 10.0


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_within_an_epoch_see_the_number_of_the_step(kind, tmp_path):
    saved = ModelCheckpoint(
        tmp_path / "best",
        monitor=TAG,
        every_n_train_steps=6,
        save_top_k=-1,
        filename=f"{{step}}-{{{TAG}:.0f}}",
        auto_insert_metric_name=False,
    )
    count = Count(every_n_steps=3)
    fit(tmp_path, module(kind), saved, count, enable_checkpointing=True, logger=False)
    assert support.files(tmp_path / "best") == ["12-5.ckpt", "6-3.ckpt"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_scheduler_steps_by_the_number_of_the_epoch(kind, tmp_path):
    count, rates = Count([5.0, 1.0, 2.0, 0.5]), LearningRateMonitor(logging_interval="epoch")
    made = (
        support.rule(
            BP,
            lr_scheduler=lambda o: ReduceLROnPlateau(o, monitor=TAG, factor=0.5, patience=0),
        )
        if kind == "rule"
        else Scheduled()
    )
    trainer = fit(tmp_path, made, count, rates)
    # Of 1, 2 and .5 the second is worse than the one before.
    scheduler = trainer.lr_scheduler_configs[0].scheduler
    assert (scheduler.last_epoch, scheduler.best) == (3, 0.5)
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    assert rate == pytest.approx(trainer.optimizers[0].defaults["lr"] / 2)


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_resume_the_number_is_there_before_the_next_measurement(kind, tmp_path):
    def run(epochs, ckpt_path=None):
        saved = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=6, save_top_k=-1)
        seen = Seen()
        options = {"max_epochs": epochs, "enable_checkpointing": True, "logger": False}
        count = Count(every_n_steps=5)
        fit(tmp_path, module(kind), count, seen, saved, ckpt_path=ckpt_path, **options)
        return seen.values

    assert run(3) == [1.0] * 4 + [2.0] * 5 + [3.0] * 3
    assert run(3, tmp_path / "step=6.ckpt") == [2.0] * 3 + [3.0] * 3


class Seen(lightning.pytorch.Callback):
    """What stands there after each step."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, *args):
        self.values.append(float(trainer.callback_metrics[TAG]))


def test_nothing_is_logged_twice_and_no_history_takes_it_for_a_validation_metric(tmp_path):
    fit(tmp_path, support.Validated(), Count(), MetricHistory())
    assert len(support.events(tmp_path).Scalars(TAG)) == 4
    rows = read_history(tmp_path / "metrics.jsonl")
    assert [list(row["values"]) for row in rows] == [["val/loss"]] * 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("watcher", "count", "options", "words"),
    [
        (EarlyStopping("value/counts"), {}, {}, "does not measure.* one of: value/count"),
        (EarlyStopping(TAG), {"every_n_epochs": 2}, {}, "after every epoch.*`every_n_epochs=1`"),
        (
            EarlyStopping(TAG, check_on_train_epoch_end=False),
            {},
            {},
            "at the end of validation.*`check_on_train_epoch_end=True`",
        ),
        (
            ModelCheckpoint(monitor=TAG),
            {},
            {"val_check_interval": 2},
            "at the end of validation.*`save_on_train_epoch_end=True`",
        ),
        (
            ModelCheckpoint(monitor=TAG, every_n_epochs=3),
            {"every_n_epochs": 2},
            {},
            "after every 3 epochs.*after every 2.*`every_n_epochs=3`",
        ),
        (
            ModelCheckpoint(monitor=TAG, every_n_train_steps=4),
            {"every_n_steps": 3},
            {},
            "after every 4 steps.*`every_n_steps=4`",
        ),
        (
            ModelCheckpoint(monitor=TAG, every_n_train_steps=4),
            {},
            {},
            "after every 4 steps.*`every_n_steps=4`",
        ),
        (
            pytorch_lightning.callbacks.EarlyStopping(TAG),
            {},
            {},
            "another package than the Trainer.*put it last",
        ),
    ],
)
def test_who_looks_too_early_is_refused_before_the_first_step(
    kind, watcher, count, options, words, tmp_path
):
    made = module(kind)
    options = {"enable_checkpointing": True, "logger": False} | options
    with pytest.raises(MisconfigurationException, match=re.compile(words, re.DOTALL)):
        fit(tmp_path, made, watcher, Count(**count), **options)
    assert made.trainer.global_step == 0


def test_a_schedule_by_plateaus_more_often_than_the_measurements_is_refused(tmp_path):
    words = "ReduceLROnPlateau watches.*after every epoch.*`every_n_epochs=1`"
    with pytest.raises(MisconfigurationException, match=words):
        fit(tmp_path, Scheduled(), Count(every_n_epochs=2), logger=False)
