"""The properties of every public function, of ``functional`` and of the studies.

Those of a study stand in ``tests/studies/<its name>/cases.py``.
"""

from importlib import import_module
from importlib.util import find_spec
from inspect import isfunction, signature
from pkgutil import iter_modules

import pytest
from torch import Tensor

from lit_credit import functional, studies
from tests.functional.cases import distributions, heads, numbers, vectors


def _takes_tensors(function):
    return isfunction(function) and any(
        parameter.annotation is Tensor for parameter in signature(function).parameters.values()
    )


PUBLIC = {name: getattr(functional, name) for name in functional.__all__}
CASES = {**vectors.CASES, **heads.CASES, **distributions.CASES, **numbers.CASES}
for study in iter_modules(studies.__path__):
    room = import_module(f"lit_credit.studies.{study.name}")
    exported = {name: getattr(room, name) for name in room.__all__}
    PUBLIC |= {name: found for name, found in exported.items() if _takes_tensors(found)}
    if find_spec(f"tests.studies.{study.name}.cases"):
        CASES |= import_module(f"tests.studies.{study.name}.cases").CASES


def having(this=lambda case: True):
    """A test for every function that has what the property is about."""
    return pytest.mark.parametrize("name", [name for name, case in CASES.items() if this(case)])
