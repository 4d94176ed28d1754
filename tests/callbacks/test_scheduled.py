"""When a scheduled diagnostic measures; that all of them keep to it is in test_contract.py."""

import pytest
import torch

from lit_credit.callbacks import ResidualNorms
from lit_credit.rules import FA
from tests import support
from tests.support import Validated, files, fit

UNITS = ["model.embed", "model.blocks.*"]


@pytest.mark.parametrize(
    ("schedule", "rows"),
    [
        ({}, [(0, 0), (4, 1), (8, 2), (12, 3)]),
        ({"every_n_epochs": 2}, [(0, 0), (8, 2), (12, 3)]),
        ({"every_n_steps": 4}, [(0, 0), (4, 1), (8, 2), (12, 3)]),
        ({"every_n_steps": 5}, [(0, 0), (5, 1), (10, 2), (12, 3)]),
    ],
    ids=str,
)
def test_rows_are_those_of_the_schedule(schedule, rows, tmp_path):
    callback = ResidualNorms(n_samples=7, figure=False, **schedule)
    fit(tmp_path, support.rule(FA), callback, logger=False)
    assert [(row["step"], row["epoch"]) for row in callback.history.rows] == rows
    assert {row["name"] for row in callback.history.rows} == {"residual_norms"}
    assert files(tmp_path) == ["residual_norms.jsonl"]


def test_accumulated_batches_are_one_step_and_one_row(tmp_path):
    callback = ResidualNorms(n_samples=7, units=UNITS, every_n_steps=1)
    fit(tmp_path, Validated(), callback, accumulate_grad_batches=2, logger=False)
    assert [row["step"] for row in callback.history.rows] == list(range(7))


class TwoOptimizers(Validated):
    """Counts two steps a batch."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def batch_loss(self, batch):
        return self.model(batch[0]).square().mean()

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(self.batch_loss(batch))
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), 0.1) for _ in range(2)]


def test_steps_that_come_in_twos_do_not_miss_an_odd_schedule(tmp_path):
    callback = ResidualNorms(n_samples=7, units=UNITS, every_n_steps=3)
    fit(tmp_path, TwoOptimizers(), callback, logger=False, max_epochs=2)
    assert [row["step"] for row in callback.history.rows] == [0, 4, 6, 10, 12, 16]
