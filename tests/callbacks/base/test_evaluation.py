"""Diagnostics measure once in validate and in test, into folders of their own."""

import logging

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from lit_credit.callbacks import ExactDivergence, ResidualNorms, WeightAlignment
from lit_credit.datamodules import TensorLoader
from lit_credit.rules import DFA, FA
from lit_credit.runs.history import read_history
from lit_credit.testing import check_diagnostic
from tests import support
from tests.support import Validated, events, files, fit, val_loader

UNITS = ["model.embed", "model.blocks.*"]
NAME = "residual_norms.jsonl"


class Data(support.ValidatedData):
    """Data that can be tested too: other rows than those of the validation."""

    def __init__(self):
        super().__init__(support.train_loader(), val_loader())

    def test_dataloader(self):
        return TensorLoader(support.tensors(9, seed=3), batch_size=4, shuffle=False)


class Evaluated(Validated):
    """A foreign module that validates and tests."""

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self.model(batch[0]).square().mean())


def norms(**kwargs):
    return ResidualNorms(**({"n_samples": 7, "units": UNITS, "figure": False} | kwargs))


def steps(rows):
    return [(row["step"], row["epoch"]) for row in rows]


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_there_is_one_row_of_the_data_at_hand_and_a_figure(stage, tmp_path):
    callback, module = norms(figure=True), Evaluated()
    trainer = support.trainer(tmp_path, callback)
    getattr(trainer, stage)(module, datamodule=Data(), verbose=False)
    (row,) = read_history(tmp_path / stage / NAME)
    assert callback.history.rows == [row]
    assert steps([row]) == [(0, 0)]
    loader = Data().val_dataloader() if stage == "validate" else Data().test_dataloader()
    assert torch.equal(callback.probe.chunks[0][0], next(iter(loader))[0])
    own = [name for name in files(tmp_path) if name.startswith(stage)]
    assert f"{stage}/figures/residual_norms.png" in own
    (point,) = events(tmp_path / stage).Scalars("residual/norm/L00")
    assert point.value == pytest.approx(row["values"]["residual/norm/L00"])
    assert trainer.callback_metrics["residual/norm/L00"] == pytest.approx(point.value)


def test_the_row_is_that_of_the_checkpoint_and_the_run_keeps_its_files(tmp_path):
    saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_epochs=1, save_top_k=-1)
    callback = norms(figure=True)
    run = fit(tmp_path, Evaluated(), callback, saving, enable_checkpointing=True)
    rows, before = callback.history.rows, {f: (tmp_path / f).read_bytes() for f in files(tmp_path)}
    for name, progress in (("step=4.ckpt", (4, 1)), ("step=12.ckpt", (12, 3))):
        other = norms()
        trainer = support.trainer(tmp_path, other, logger=False)
        trainer.validate(Evaluated(), datamodule=Data(), ckpt_path=tmp_path / name, verbose=False)
        (row,) = other.history.rows
        assert steps([row]) == [progress]
        then = next(r for r in rows if r["step"] == row["step"])
        assert row["values"] == pytest.approx(then["values"], abs=1e-6)  # chunks of another size
    # A second validation has a file of its own; the first keeps its rows under another name.
    assert steps(read_history(tmp_path / "validate" / NAME)) == [(12, 3)]
    assert steps(read_history(tmp_path / "validate" / "residual_norms.1.jsonl")) == [(4, 1)]
    assert {f: (tmp_path / f).read_bytes() for f in before} == before
    run.test(datamodule=Data(), ckpt_path="best", verbose=False)
    assert steps(read_history(tmp_path / "test" / NAME)) == [(12, 3)]
    assert callback.history.rows == rows


def test_a_fit_keeps_its_rows_when_a_test_follows(tmp_path):
    callback = norms()
    run = fit(tmp_path, Evaluated(), callback)
    rows, probe = list(callback.history.rows), callback.probe
    state = callback.state_dict()["file"]
    run.test(run.lightning_module, datamodule=Data(), verbose=False)
    assert callback.history.rows == rows
    assert callback.probe is probe
    assert callback.state_dict()["file"] == state
    assert read_history(tmp_path / NAME) == rows
    (row,) = read_history(tmp_path / "test" / NAME)
    assert steps([row]) == [(12, 3)]
    assert row["values"] != rows[-1]["values"]  # of other data
    scalars = [point.step for point in events(tmp_path).Scalars("residual/norm/L00")]
    assert scalars == [0, 4, 8, 12]


class Validating(Callback):
    """Validates in the middle of a fit with a Trainer of its own, and at its end with the same."""

    def __init__(self, folder, callback):
        self.folder, self.callback = folder, callback

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 5:
            other = support.trainer(self.folder / "other", self.callback, logger=False)
            other.validate(pl_module, val_loader(), verbose=False)
            pl_module.trainer = trainer

    def on_train_end(self, trainer, pl_module):
        trainer.validate(pl_module, val_loader(), verbose=False)


def test_a_validation_inside_of_a_fit_does_not_end_its_history(tmp_path):
    plain, callback = norms(), norms(figure=True)
    fit(tmp_path / "plain", Evaluated(), plain, logger=False, num_sanity_val_steps=2)
    fit(tmp_path, Evaluated(), Validating(tmp_path, callback), callback, logger=False)
    assert callback.history.rows == read_history(tmp_path / NAME) == plain.history.rows
    assert files(tmp_path / "plain") == [NAME]
    assert {"figures/residual_norms.png", f"other/validate/{NAME}"} <= set(files(tmp_path))
    assert steps(read_history(tmp_path / "validate" / NAME)) == [(12, 3)]


class Averaged(Evaluated):
    """Validates and tests other weights than it trains."""

    def on_validation_start(self):
        self.kept = {k: v.clone() for k, v in self.model.state_dict().items()}
        for parameter in self.model.parameters():
            parameter.data.mul_(2.0)

    def on_validation_end(self):
        self.model.load_state_dict(self.kept)


def test_the_weights_are_those_that_are_validated(tmp_path):
    doubled, callback, other = Evaluated(), norms(), norms()
    for parameter in doubled.model.parameters():
        parameter.data.mul_(2.0)
    support.trainer(tmp_path, callback).validate(Averaged(), datamodule=Data(), verbose=False)
    support.trainer(tmp_path, other).validate(doubled, datamodule=Data(), verbose=False)
    assert callback.history.rows == other.history.rows


def test_a_failing_measurement_is_named_and_gives_back_the_rows_of_the_fit(tmp_path):
    module, callback = Evaluated(), norms()
    run = fit(tmp_path, module, callback)
    rows = list(callback.history.rows)
    module.model.fails_on = 6
    with pytest.raises(MisconfigurationException, match=r"ResidualNorms.*the net fails"):
        run.validate(module, datamodule=Data(), verbose=False)
    assert callback.history.rows == rows


def test_other_loggers_get_tags_that_begin_with_the_stage(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    trainer = support.trainer(tmp_path, norms(), logger=logger)
    trainer.validate(Evaluated(), datamodule=Data(), verbose=False)
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    assert "validate/residual/norm/L00" in header
    assert "residual/norm/L00" not in header


def test_diagnostics_without_a_probe_measure_too(tmp_path):
    callbacks = WeightAlignment(figure=False), ExactDivergence(figure=False)
    trainer = support.trainer(tmp_path, *callbacks, logger=False)
    trainer.validate(support.rule(FA, support.SymbolNet), datamodule=Data(), verbose=False)
    assert [len(callback.history.rows) for callback in callbacks] == [1, 1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limit_val_batches": 0}, "measured nothing: `trainer.validate` had no batch"),
        ({"fast_dev_run": True}, ""),
        ({"limit_val_batches": 1}, "Rows and figures of `validate` are in"),
    ],
)
def test_limits_of_the_trainer(options, said, tmp_path, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    callback = norms(n_samples=15)  # more than a batch
    with caplog.at_level(logging.INFO):
        trainer = support.trainer(tmp_path, callback, logger=False, **options)
        trainer.validate(Evaluated(), datamodule=Data(), verbose=False)
    assert said in caplog.text
    limited = "limit_val_batches" in options and options["limit_val_batches"] == 0
    assert len(callback.history.rows) == (0 if limited else 1)
    assert (files(tmp_path) == [f"validate/{NAME}"]) == ("Rows" in said)


def test_of_several_loaders_the_first_is_the_probe_and_iterators_are_refused(tmp_path):
    module, callback = Evaluated(), norms()
    module.validation_step = lambda batch, batch_idx, dataloader_idx=0: None
    trainer = support.trainer(tmp_path, callback, logger=False)
    trainer.validate(module, [val_loader(), support.train_loader()], verbose=False)
    assert torch.equal(callback.probe.chunks[0][0], next(iter(val_loader()))[0])
    with pytest.raises(MisconfigurationException, match="an iterator, would take samples"):
        trainer.validate(module, iter([next(iter(val_loader()))]), verbose=False)


def test_probes_of_training_data_are_left_out_with_a_word(tmp_path, caplog):
    callback, other = norms(probe="train"), norms(n_samples=1000)
    trainer = support.trainer(tmp_path, callback, other, logger=False)
    with caplog.at_level(logging.INFO):
        trainer.validate(Evaluated(), datamodule=Data(), verbose=False)
    assert "ResidualNorms measures nothing in `trainer.validate`: its `probe` is" in caplog.text
    assert not callback.history.rows
    assert "20 of 1000 rows of `n_samples`" in caplog.text
    assert len(other.history.rows) == 1


def test_predict_says_what_to_call(tmp_path, caplog):
    callback = norms()
    with caplog.at_level(logging.INFO):
        trainer = support.trainer(tmp_path, callback, norms(n_samples=5), logger=False)
        trainer.predict(Evaluated(), DataLoader(torch.ones(2, 12)))
    assert caplog.text.count("measure nothing in `trainer.predict`. Call `trainer.validate`") == 1
    assert not callback.history.rows


@pytest.mark.parametrize(
    "options", [{"max_steps": 0}, {"max_epochs": 0}, {"limit_train_batches": 0}], ids=str
)
def test_a_fit_with_nothing_to_train_measures_the_weights_as_given(options, tmp_path):
    callback = norms(figure=True)
    fit(tmp_path, Evaluated(), callback, logger=False, **options)
    assert steps(callback.history.rows) == [(0, 0)]
    assert files(tmp_path) == ["figures/residual_norms.png", NAME]
    longer = norms()
    fit(tmp_path / "longer", Evaluated(), longer, logger=False)
    (row,), first = callback.history.rows, longer.history.rows[0]
    # Products of matrices round by where their memory lies.
    assert row["values"] == pytest.approx(first["values"], rel=1e-6)
    assert row["name"] == first["name"]


def test_a_run_that_had_ended_gets_no_second_row(tmp_path):
    module = Evaluated()
    fit(tmp_path, module, norms(), logger=False).save_checkpoint(tmp_path / "a.ckpt")
    again = norms()
    fit(tmp_path, module, again, logger=False, ckpt_path=tmp_path / "a.ckpt")
    assert steps(again.history.rows) == [(0, 0), (4, 1), (8, 2), (12, 3)]


def test_a_rule_is_validated_alike_with_and_without_a_diagnostic(tmp_path):
    found = []
    for callbacks in ([], [ResidualNorms(n_samples=7)]):
        trainer = support.trainer(tmp_path, *callbacks, logger=False)
        module = support.rule(DFA)
        found.append((module, trainer.validate(module, datamodule=Data(), verbose=False)))
    assert found[0][1] == found[1][1]
    assert support.same_state(found[0][0], found[1][0])


def test_the_package_pytorch_lightning_measures_too(tmp_path):
    package = pytest.importorskip("pytorch_lightning")

    class Foreign(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = support.NoisyNet()

        def training_step(self, batch, batch_idx):
            return self.model(batch[0]).square().mean()

        test_step = validation_step = training_step

    callback = norms()
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    trainer = package.Trainer(callbacks=[callback], default_root_dir=tmp_path, **options)
    trainer.test(Foreign(), val_loader(), verbose=False)
    assert steps(read_history(tmp_path / "test" / NAME)) == [(0, 0)]


def test_the_shipped_check_validates(tmp_path):
    class Leaking(Callback):
        def on_validation_end(self, trainer, pl_module):
            if trainer.state.fn == "validate":
                pl_module.net.net.last.bias.data.add_(1e-6)

    with pytest.raises(AssertionError, match=r"net\.net\.last\.bias"):
        check_diagnostic(Leaking, kinds=["automatic"], states=[])


def test_without_any_data_the_error_says_so(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"no data .*`limit_train_batches=0`"):
        fit(
            tmp_path,
            support.rule(FA),
            ResidualNorms(),
            loaders=(support.train_loader(), None),
            limit_train_batches=0,
            max_epochs=1,
        )
