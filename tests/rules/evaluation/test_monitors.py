"""Names of metrics: those that are watched, and those under which runs are compared."""

import warnings
from copy import copy

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torchmetrics.classification import MulticlassAccuracy

from lit_credit.callbacks import GradientNorms
from lit_credit.datamodules import Digits
from lit_credit.models import MLP
from lit_credit.rules import BP
from lit_credit.tasks import Classification
from tests.support import loader, quiet_trainer, seeded
from tests.support.resumable import mlp


class NamedOdd(Classification):
    """A metric whose name holds the section's."""

    def metrics(self):
        return {"interval/x": MulticlassAccuracy(5, average="micro")}


class Logs(Callback):
    """Somebody's, that logs after each epoch."""

    def on_train_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            pl_module.log("mine", 1.0)


def fit(*callbacks, task=None, val=True, **kwargs):
    module = seeded(lambda: BP(mlp(), task or Classification(5)))
    options = {"max_epochs": 1, "callbacks": list(callbacks), "num_sanity_val_steps": 0}
    trainer = quiet_trainer(**(options | kwargs))
    trainer.fit(module, loader(), loader(n=32) if val else None)
    return trainer


def test_a_section_is_replaced_at_the_start_of_a_name_only():
    metrics = fit(task=NamedOdd(5)).callback_metrics
    assert {"val/interval/x", "hp/interval/x"} <= set(metrics)
    assert not [name for name in metrics if "inter" in name and not name.endswith("interval/x")]


@pytest.mark.parametrize("monitor", ["val/acc", "acc", "mine", "hp/loss", "step"])
def test_early_stopping_by_what_is_not_logged_is_refused_at_the_start(monitor):
    with pytest.raises(MisconfigurationException, match=f"watches '{monitor}'.*val/accuracy"):
        fit(EarlyStopping(monitor))


def test_validation_that_does_not_happen_logs_nothing():
    with pytest.raises(MisconfigurationException, match=r"watches 'val/loss'.*one of: train/loss"):
        fit(EarlyStopping("val/loss"), limit_val_batches=0)


@pytest.mark.parametrize(
    "callbacks",
    [
        [EarlyStopping("val/loss")],
        [EarlyStopping("hp/accuracy", mode="max")],
        [EarlyStopping("nothing", strict=False)],
        [EarlyStopping("mine", check_on_train_epoch_end=True), Logs()],
        [EarlyStopping("train/loss", check_on_train_epoch_end=True)],
    ],
)
@pytest.mark.filterwarnings("ignore:Early stopping conditioned on metric")
def test_what_may_be_logged_may_be_watched(callbacks):
    assert fit(*reversed(callbacks), log_every_n_steps=1).global_step == 6


def test_checkpoints_may_watch_the_step(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor="step")
    fit(checkpoint, enable_checkpointing=True, default_root_dir=tmp_path)
    assert checkpoint.best_model_path


# Selection by test data


WATCHES = "but the validation data of Digits are its test data"


def fit_digits(*callbacks, data, scheduler=None, tmp_path):
    rule = seeded(lambda: BP(MLP(64, [8], 10), Classification(), lr_scheduler=scheduler))
    trainer = quiet_trainer(
        max_epochs=1,
        limit_train_batches=1,
        callbacks=list(callbacks),
        num_sanity_val_steps=0,
        enable_checkpointing=True,
        default_root_dir=tmp_path,
    )
    trainer.fit(rule, datamodule=data)


def plateau(optimizer):
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    scheduler.monitor = "val/loss"
    return scheduler


@pytest.mark.parametrize(
    ("callbacks", "scheduler", "seen"),
    [
        ([EarlyStopping("val/loss")], None, "EarlyStopping watches 'val/loss'"),
        ([ModelCheckpoint(monitor="hp/accuracy")], None, "ModelCheckpoint watches 'hp/accuracy'"),
        ([], plateau, "`lr_scheduler` watches 'val/loss'"),
        (
            [EarlyStopping("val/loss"), ModelCheckpoint(monitor="val/loss")],
            plateau,
            "EarlyStopping watches 'val/loss', ModelCheckpoint watches 'val/loss', `lr_scheduler`",
        ),
    ],
)
def test_a_selection_by_the_test_data_is_one_warning(callbacks, scheduler, seen, tmp_path):
    with pytest.warns(UserWarning, match=seen) as warned:
        fit_digits(*callbacks, data=Digits(val_split=0), scheduler=scheduler, tmp_path=tmp_path)
    (line,) = (str(w.message) for w in warned if WATCHES in str(w.message))
    assert "\n" not in line
    # Of other data, and of other numbers, there is none: a warning would be an error.
    fit_digits(*map(copy, callbacks), data=Digits(), scheduler=scheduler, tmp_path=tmp_path / "a")


def test_other_watchers_are_no_selection_by_the_test_data(tmp_path):
    others = [
        ModelCheckpoint(filename="last"),
        ModelCheckpoint(monitor="step", mode="max"),
        EarlyStopping("train/loss", check_on_train_epoch_end=True, strict=False),
        ModelCheckpoint(monitor="gradient/norm/L00", save_on_train_epoch_end=True),
        GradientNorms(n_samples=8),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=f".*{WATCHES}")
        fit_digits(*others, data=Digits(val_split=0), tmp_path=tmp_path)
