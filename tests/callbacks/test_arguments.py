"""Arguments that a diagnostic makes no use of, and the names that its class must give."""

import inspect
import re

import pytest

from lit_credit.callbacks import (
    ExactDivergence,
    GradientNorms,
    HeadBehaviour,
    ScheduledDiagnostic,
    WeightAlignment,
)
from lit_credit.utils.batch_loss import batch_loss
from tests.callbacks.test_contract import SCHEDULED

GIVEN = {"n_samples": 7, "units": ["blocks.*"], "loss": batch_loss}


def makes_use(kind):
    return {
        "n_samples": kind.uses_probe or kind.uses_samples,
        "units": kind.uses_units,
        "loss": kind.uses_loss,
    }


@pytest.mark.parametrize("argument", GIVEN)
@pytest.mark.parametrize("kind", SCHEDULED)
def test_an_argument_without_meaning_is_refused_by_name(kind, argument):
    assert kind(**{argument: None} if argument != "n_samples" else {}) is not None
    if makes_use(kind)[argument]:
        assert getattr(kind(**{argument: GIVEN[argument]}), argument) == GIVEN[argument]
    else:
        expected = rf"`{argument}` has no meaning for {kind.__name__}"
        with pytest.raises(ValueError, match=expected):
            kind(**{argument: GIVEN[argument]})


@pytest.mark.parametrize("kind", SCHEDULED)
def test_what_a_diagnostic_says_that_it_uses_is_what_its_code_asks_for(kind):
    code = inspect.getsource(inspect.getmodule(kind))
    runs_loss = r"\b(batch_loss|own_scalar|exact_gradients|head_logits)\("
    found = {
        "n_samples": kind.uses_probe or "self.n_samples" in code,
        "units": "self.units" in code,
        "loss": re.search(runs_loss, code) is not None or "partial(batch_loss," in code,
    }
    assert found == makes_use(kind)


def test_none_is_no_argument():
    assert ExactDivergence(n_samples=None, loss=None).n_samples == 1024
    assert WeightAlignment(units=None).units is None
    assert HeadBehaviour(n_samples=3).n_samples == 3


def measured(self, module, batch):
    return {}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"section": "weight"}, "class Own: `name` is missing.*such as 'weight_sum'"),
        ({"name": "own"}, "class Own: `section` is missing.*first part of its tags"),
        ({"name": "own", "section": ""}, "`section` is ''"),
        ({"name": "a/b", "section": "own"}, "`name` is 'a/b'"),
        ({"name": "own", "section": "a/b"}, "`section` is 'a/b'"),
        ({"name": "own", "section": 3}, "`section` is 3"),
    ],
)
def test_names_are_checked_when_the_class_is_made(names, expected):
    with pytest.raises(TypeError, match=expected):
        type("Own", (ScheduledDiagnostic,), {"measure": measured, **names})


def test_a_base_class_needs_no_names_and_a_subclass_inherits_them():
    base = type("Base", (ScheduledDiagnostic,), {})
    own = type("Own", (base,), {"measure": measured, "name": "own", "section": "parts"})
    derived = type("Derived", (GradientNorms,), {})
    assert (own.name, own.section) == ("own", "parts")
    assert (derived.name, derived.section) == (GradientNorms.name, GradientNorms.section)
