"""The rows of metrics.jsonl."""

import pytest

from lit_credit.callbacks import MetricHistory
from lit_credit.rules import BP
from lit_credit.runs.history import read_history
from tests import support


def steps(folder, module=None, **kwargs):
    trainer = support.trainer(folder, MetricHistory(), logger=False, **kwargs)
    trainer.fit(module or support.rule(BP), support.train_loader(), support.val_loader())
    rows = read_history(folder / "metrics.jsonl")
    return [(row["step"], row["epoch"]) for row in rows], rows, trainer


@pytest.mark.parametrize(
    ("sanity", "first"), [(0, []), (1, []), (4, [(0, 0)]), (-1, [(0, 0)])], ids=str
)
def test_a_validation_of_all_data_before_training_is_the_row_of_epoch_0(sanity, first, tmp_path):
    found, rows, trainer = steps(tmp_path, num_sanity_val_steps=sanity)
    assert found == [*first, (4, 1), (8, 2), (12, 3)]
    assert set(rows[-1]["values"]) == {"val/accuracy", "val/loss"}
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
    assert rows[-1]["values"] == metrics


def test_a_validation_in_mid_epoch_counts_the_epochs_completed(tmp_path):
    found, *_ = steps(tmp_path, val_check_interval=2, max_epochs=2)
    assert found == [(2, 0), (4, 1), (6, 1), (8, 2)]


class Underscored(support.Validated):
    """One that names its metrics as Lightning's own examples do."""

    def log(self, name, *args, **kwargs):
        super().log(name.replace("/", "_"), *args, **kwargs)


@pytest.mark.parametrize(
    ("module", "name"), [(support.Validated, "val/loss"), (Underscored, "val_loss")]
)
def test_a_foreign_module_that_validates(module, name, tmp_path):
    _, rows, _ = steps(tmp_path, module(), max_epochs=1)
    assert list(rows[0]["values"]) == [name]


def test_a_validation_outside_of_fit_is_no_row(tmp_path):
    callback = MetricHistory()
    trainer = support.trainer(tmp_path, callback, logger=False, max_epochs=1)
    module = support.rule(BP)
    trainer.validate(module, support.val_loader(), verbose=False)
    assert callback.history.rows == []
