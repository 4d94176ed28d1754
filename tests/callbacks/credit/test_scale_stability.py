"""The flags of ScaleStability, on a module whose numbers are known."""

import math

import pytest
import torch

from lit_credit.callbacks import ScaleStability
from tests import support
from tests.support import train_loader, val_loader


class Doubling(support.Validated):
    """Its stream doubles every epoch, and its validation says what it is told to."""

    def __init__(self, accuracy=0.37, vanish=False):
        super().__init__()
        self.accuracy = accuracy
        self.stream = torch.nn.Linear(12, 8, bias=False)
        self.head = torch.nn.Linear(8, 4, bias=False)
        if vanish:
            self.head.weight.data.zero_()

    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.head(self.stream(x)), y)

    def on_train_epoch_start(self):
        self.stream.weight.data.mul_(2)

    def validation_step(self, batch, batch_idx):
        self.log("val/accuracy", self.accuracy)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def rows(folder, module, **kwargs):
    callback = ScaleStability(units=["stream"], **kwargs)
    trainer = support.trainer(folder, callback, logger=False)
    trainer.fit(module, train_loader(), val_loader())
    return [row["values"] for row in callback.history.rows]


def column(values, tag):
    return [row[f"stability/{tag}"] for row in values]


@pytest.mark.parametrize(("limit", "raised"), [(8.0, 0), (7.9, 1)])
def test_growth_is_over_the_first_value_and_flagged_above_the_limit(limit, raised, tmp_path):
    found = rows(tmp_path, Doubling(), growth_limit=limit)
    assert column(found, "growth") == pytest.approx([1, 2, 4, 8])
    assert column(found, "scale_unstable") == [0, 0, 0, raised]
    norms = column(found, "norm")
    assert norms[3] == pytest.approx(8 * norms[0])


@pytest.mark.parametrize(("frozen", "raised"), [(0.35, 0), (0.36, 1)])
def test_depth_is_unused_below_the_margin_over_the_frozen_net(frozen, raised, tmp_path):
    flags = column(rows(tmp_path, Doubling(0.37), frozen_accuracy=frozen), "depth_unused")
    # Before training nothing has been validated.
    assert math.isnan(flags[0])
    assert flags[1:] == [raised] * 3


def test_without_the_frozen_accuracy_depth_is_undefined(tmp_path):
    assert all(map(math.isnan, column(rows(tmp_path, Doubling()), "depth_unused")))


def test_a_gradient_that_float32_holds_is_a_valid_reference(tmp_path):
    found = rows(tmp_path, Doubling())
    assert column(found, "reference_cosine") == pytest.approx([1] * 4)
    assert column(found, "reference_invalid") == [0] * 4
    assert column(rows(tmp_path, Doubling(), reference_limit=1.0), "reference_invalid")[0] in (0, 1)


def test_a_vanished_gradient_makes_the_reference_undefined(tmp_path):
    found = rows(tmp_path, Doubling(vanish=True))
    assert all(map(math.isnan, column(found, "reference_cosine")))
    assert all(map(math.isnan, column(found, "reference_invalid")))


@pytest.mark.parametrize(
    "argument",
    [
        {"growth_limit": -1.0},
        {"frozen_accuracy": 35.0},
        {"accuracy_margin": 2.0},
        {"reference_limit": 1.5},
    ],
    ids=lambda argument: next(iter(argument)),
)
def test_thresholds_out_of_range_are_refused(argument):
    with pytest.raises(ValueError, match=f"`{next(iter(argument))}` is .*, expected "):
        ScaleStability(**argument)
