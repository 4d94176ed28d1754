"""A measurement that fails ends a run only if it is the first."""

import math
import warnings

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_credit.callbacks import CreditAlignment, GradientNorms, ResidualNorms
from lit_credit.callbacks.base.failures import Attempts
from lit_credit.inspect.finite import NonFiniteError
from lit_credit.rules import BP, DFA, FA, BlockFA
from lit_credit.runs.history import read_history
from tests import support
from tests.callbacks.test_contract import SCHEDULED, make, net_for
from tests.support import NoisyNet, Validated, fit, same_state

ROWS = [{"step": 0, "epoch": 0, "name": "x", "values": {"x/a": 1.0, "x/b": 2.0}}]


def failing(error):
    def measure():
        raise error

    return measure


def is_nan(values):
    return bool(values) and all(math.isnan(value) for value in values.values())


def test_the_first_measurement_raises():
    with pytest.raises(ZeroDivisionError):
        Attempts("Callback").values(failing(ZeroDivisionError()), [], 0)


@pytest.mark.parametrize("error", [RuntimeError("no\nmore"), KeyError("a"), AssertionError()])
def test_a_later_one_is_a_row_of_nan_and_one_warning(error):
    attempts = Attempts("Callback")
    with pytest.warns(
        UserWarning, match=f"Callback could not be .* at step 7: {type(error).__name__}"
    ):
        found = attempts.values(failing(error), ROWS, 7)
    assert found.keys() == {"x/a", "x/b"}
    assert is_nan(found)
    assert is_nan(attempts.values(failing(error), ROWS, 8))  # without another warning
    assert attempts.values(lambda: {"x/a": 3.0, "x/b": 4.0}, ROWS, 9) == {"x/a": 3.0, "x/b": 4.0}


def test_a_row_has_the_tags_of_the_first():
    found = Attempts("Callback").values(lambda: {"x/b": 4.0, "x/c": 5.0}, ROWS, 7)
    assert list(found) == ["x/a", "x/b", "x/c"]
    assert math.isnan(found.pop("x/a"))
    assert found == {"x/b": 4.0, "x/c": 5.0}


def test_one_that_had_nothing_to_say_at_first_does_not_raise_later():
    attempts = Attempts("Callback")
    assert attempts.values(dict, [], 0) == {}
    with pytest.warns(UserWarning, match="step 4: ValueError: no"):
        assert attempts.values(failing(ValueError("no")), [], 4) == {}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), NonFiniteError("NaN")])
def test_what_is_meant_to_end_the_run_does(error):
    with pytest.raises(type(error)):
        Attempts("Callback").values(failing(error), ROWS, 7)


class FailsFrom(Callback):
    """The ``update`` of a diagnostic raises in the second epoch."""

    def __init__(self, diagnostic):
        self.diagnostic = diagnostic
        self.update = diagnostic.update

    def fails(self, chunk):
        self.update(chunk)
        raise RuntimeError("as a test wants it")

    def on_train_epoch_start(self, trainer, pl_module):
        self.diagnostic.update = self.fails if trainer.current_epoch == 1 else self.update


@pytest.mark.few(8)
@pytest.mark.parametrize("kind", SCHEDULED)
def test_every_diagnostic_goes_on_after_a_measurement_that_fails(kind, tmp_path):
    callback = make(kind)
    module = support.rule(FA, net_for(kind))
    with pytest.warns(UserWarning, match=rf"{kind.__name__} could .*RuntimeError: as a test"):
        fit(tmp_path, module, FailsFrom(callback), callback, logger="csv")
    twin = support.rule(FA, net_for(kind))
    fit(tmp_path / "twin", twin, logger=False)
    assert same_state(module, twin)
    rows = read_history(tmp_path / f"{kind.name}.jsonl")
    assert [row["step"] for row in rows] == [0, 4, 8, 12]
    assert len({tuple(row["values"]) for row in rows}) == 1
    assert [is_nan(row["values"]) for row in rows] == [False, False, True, False]


class Moody(NoisyNet):
    """Raises where it is looked at, if it is told to."""

    moody = False

    def forward(self, x):
        if self.moody and not self.training:
            raise ValueError("The user's own words.\nAnd more of them.")
        return super().forward(x)


class Mood(Callback):
    def __init__(self, epochs):
        self.epochs = epochs

    def on_train_epoch_start(self, trainer, pl_module):
        net = pl_module.net if hasattr(pl_module, "net") else pl_module.model
        net.moody = trainer.current_epoch in self.epochs


PROBED = [ResidualNorms, GradientNorms, CreditAlignment]


def foreign():
    return Validated(Moody)


def of_rule(kind):
    return lambda: support.rule(kind, Moody)


MODULES = {"foreign": foreign} | {kind.__name__: of_rule(kind) for kind in (BP, FA, DFA, BlockFA)}


@pytest.mark.parametrize("kind", PROBED)
@pytest.mark.parametrize("name", MODULES)
def test_an_error_of_the_users_own_code_on_the_probe_does_not_end_the_run(name, kind, tmp_path):
    units = {"units": ["model.embed", "model.blocks.*"]} if name == "foreign" else {}
    callback = kind(n_samples=7, figure=False, **(units if kind is not CreditAlignment else {}))
    module = MODULES[name]()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        # No validation: it would raise as well, and end the run by right.
        fit(tmp_path, module, Mood((0, 2)), callback, logger=False, limit_val_batches=0)
    said = [str(w.message) for w in told if "could not be measured" in str(w.message)]
    assert len(said) == 1
    assert f"{kind.__name__} could" in said[0]
    assert "at step 4: ValueError: The user's own words. What" in said[0]
    twin = MODULES[name]()
    fit(tmp_path / "twin", twin, logger=False, limit_val_batches=0)
    assert same_state(module, twin)
    assert [is_nan(row["values"]) for row in callback.history.rows] == [False, True, False, True]


def test_the_first_measurement_of_a_run_ends_it_before_any_work(tmp_path):
    module = foreign()
    module.model.moody = True
    callback = ResidualNorms(units=["model.embed"], figure=False)
    with pytest.raises(MisconfigurationException, match="The user's own words"):
        fit(tmp_path, module, callback, logger=False, limit_val_batches=0)
    assert callback.history.rows == []


def test_a_resumed_run_is_past_its_first_measurement(tmp_path):
    def run(epochs, moody, ckpt_path=None):
        module = foreign()
        module.model.moody = moody
        saving = ModelCheckpoint(tmp_path, save_last=True)
        callback = ResidualNorms(units=["model.embed"], figure=False, n_samples=7)
        options = {"max_epochs": epochs, "limit_val_batches": 0, "enable_checkpointing": True}
        fit(tmp_path, module, saving, callback, ckpt_path=ckpt_path, logger=False, **options)
        return callback

    run(1, moody=False)
    with pytest.warns(UserWarning, match="at step 8: ValueError: The user's own words"):
        again = run(2, moody=True, ckpt_path=tmp_path / "last.ckpt")
    assert [row["step"] for row in again.history.rows] == [0, 4, 8]
    assert [is_nan(row["values"]) for row in again.history.rows] == [False, False, True]
    assert torch.isfinite(torch.tensor(list(again.history.rows[1]["values"].values()))).all()
