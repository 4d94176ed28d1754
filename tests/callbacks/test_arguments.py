"""Arguments that a diagnostic makes no use of, and the names that its class must give."""

import pytest

from lit_credit.callbacks import (
    Diagnostic,
    GradientNorms,
)
from lit_credit.inspect.batch_loss import batch_loss
from tests.callbacks.test_contract import SCHEDULED, takes

GIVEN = {"n_samples": 7, "units": ["blocks.*"], "loss": batch_loss, "chunk_size": 3}


@pytest.mark.parametrize("argument", GIVEN)
@pytest.mark.parametrize("kind", SCHEDULED)
def test_a_diagnostic_takes_the_arguments_that_it_has_and_no_others(kind, argument):
    if takes(kind, argument):
        assert getattr(kind(**{argument: GIVEN[argument]}), argument) == GIVEN[argument]
    else:
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{argument}'"):
            kind(**{argument: GIVEN[argument]})


@pytest.mark.parametrize("kind", SCHEDULED)
def test_arguments_are_given_by_name(kind):
    with pytest.raises(TypeError, match="positional argument"):
        kind(1)


def nothing(*_):
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
        type("Own", (Diagnostic,), {"update": nothing, "compute": nothing, **names})


def test_a_base_class_needs_no_names_and_a_subclass_inherits_them():
    base = type("Base", (Diagnostic,), {})
    own = type(
        "Own", (base,), {"update": nothing, "compute": nothing, "name": "own", "section": "parts"}
    )
    derived = type("Derived", (GradientNorms,), {})
    assert (own.name, own.section) == ("own", "parts")
    assert (derived.name, derived.section) == (GradientNorms.name, GradientNorms.section)
