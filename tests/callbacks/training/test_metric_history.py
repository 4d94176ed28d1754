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


def with_tests(folder, *trainings, **kwargs):
    """Rows of a Trainer's tests, after a fit or without one."""
    trainer = support.trainer(folder, MetricHistory(), logger=False, max_epochs=1, **kwargs)
    module = support.rule(BP)
    for fits in trainings:
        if fits:
            trainer.fit(module, support.train_loader(), support.val_loader())
        trainer.test(module, support.val_loader(), verbose=False)
    return trainer


def test_a_test_after_a_fit_is_the_only_row_of_its_file(tmp_path):
    trainer = with_tests(tmp_path, True, False)
    (row,) = read_history(tmp_path / "test.jsonl")
    assert (row["step"], row["epoch"], row["name"]) == (4, 1, "test")
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
    assert row["values"] == metrics
    assert set(metrics) == {"test/accuracy", "test/loss"}
    assert [row["epoch"] for row in read_history(tmp_path / "metrics.jsonl")] == [1]


def test_a_test_of_an_earlier_checkpoint_has_its_step(tmp_path):
    trainer = with_tests(tmp_path, True)
    trainer.save_checkpoint(tmp_path / "early.ckpt")
    trainer.fit_loop.max_epochs = 3
    module = trainer.lightning_module
    trainer.fit(module, support.train_loader(), support.val_loader())
    for path, place in ((None, (12, 3)), (tmp_path / "early.ckpt", (4, 1)), (None, (12, 3))):
        trainer.test(module, support.val_loader(), ckpt_path=path, verbose=False)
        (row,) = read_history(tmp_path / "test.jsonl")
        assert (row["step"], row["epoch"]) == place


def test_a_test_without_a_fit_leaves_the_runs_file_alone(tmp_path):
    with_tests(tmp_path, True)
    before = (tmp_path / "test.jsonl").read_bytes()
    with_tests(tmp_path, False)
    assert (tmp_path / "test.jsonl").read_bytes() == before
    assert [row["step"] for row in read_history(tmp_path / "test" / "test.jsonl")] == [0]


def test_a_row_of_a_test_that_cannot_be_written_is_a_warning(tmp_path):
    (tmp_path / "test.jsonl").mkdir()
    with pytest.warns(UserWarning, match=r"test\.jsonl is not written: Is a "):
        with_tests(tmp_path, True)


def test_a_trial_run_and_a_test_of_nothing_write_no_row(tmp_path):
    with_tests(tmp_path, True, fast_dev_run=True)
    with_tests(tmp_path, True, limit_test_batches=0)
    assert not list(tmp_path.rglob("test.jsonl"))
