"""Every public name of ``functional``, with its properties; and the functions of studies."""

from inspect import isfunction, signature

import pytest
from torch import Tensor

from lit_credit import functional
from lit_credit.studies import addition, ngram
from tests.functional.cases import distributions, heads, numbers, vectors

PUBLIC = {name: getattr(functional, name) for name in functional.__all__}
for study in (addition, ngram):
    for name in study.__all__:
        found = getattr(study, name)
        if isfunction(found) and any(
            x.annotation is Tensor for x in signature(found).parameters.values()
        ):
            PUBLIC[name] = found

CASES = {**vectors.CASES, **heads.CASES, **distributions.CASES, **numbers.CASES}


def having(this=lambda case: True):
    """A test for every function that has what the property is about."""
    return pytest.mark.parametrize("name", [name for name, case in CASES.items() if this(case)])
