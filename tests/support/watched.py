"""A project of someone else, trained with diagnostics and without."""

import pytest

from lit_credit.callbacks import (
    AttentionMaps,
    CreditAlignment,
    Diagnostic,
    GradientNorms,
    ReferenceValidity,
    ResidualNorms,
    SoftmaxJacobian,
)
from tests import support
from tests.support import same_state

UNITS = ["model.embed", "model.blocks.*"]


def diagnostics(units=UNITS, **kwargs):
    """One of every way to look: values, gradients, updates, float64, attention, its gradient."""
    options = {"n_samples": 7, "figure": False} | kwargs
    on_units = [ResidualNorms, GradientNorms, CreditAlignment, ReferenceValidity]
    on_attention = [AttentionMaps, SoftmaxJacobian]
    return [kind(units=units, **options) for kind in on_units] + [
        kind(**options) for kind in on_attention
    ]


class WeightSum(Diagnostic):
    """The sum of all weights: which ones a diagnostic sees."""

    name = "weight_sum"
    section = "weight"

    def update(self, chunk):
        self.sum = float(sum(p.detach().double().sum() for p in chunk.module.parameters()))

    def compute(self):
        return {"sum": self.sum}


def loaders():
    return support.train_loader(), support.val_loader()


def fit(folder, module, *callbacks, data=None, **kwargs):
    options = {"logger": False, "max_epochs": 1} | kwargs
    run = support.trainer(folder, *callbacks, **options)
    run.fit(module, *(data or loaders)())
    return run


def watched(folder, make, callbacks=None, compare=same_state, **kwargs):
    """Train what ``make`` gives twice, the second time with diagnostics; they are returned.

    The trained weights must be the same to the bit, and there must be a row before and after.
    """
    callbacks = diagnostics() if callbacks is None else callbacks
    bare, seen = (
        fit(folder, make(), *given, **kwargs).lightning_module for given in ((), callbacks)
    )
    assert compare(bare, seen)
    for callback in callbacks:
        assert len(callback.history.rows) >= 2
        assert callback.history.rows[-1]["values"]
    return callbacks


def values(callbacks):
    """Tag to value, of the last rows of all."""
    return {k: v for c in callbacks for k, v in c.history.rows[-1]["values"].items()}


def finite(callbacks):
    return all(abs(v) < float("inf") for v in values(callbacks).values())


def same_values(one, other, tolerance=1e-5):
    return values(one).keys() == values(other).keys() and all(
        values(other)[k] == pytest.approx(v, rel=tolerance, abs=1e-6, nan_ok=True)
        for k, v in values(one).items()
    )
