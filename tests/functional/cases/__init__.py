"""Every public name of ``functional``, with the properties that it has."""

import pytest

from tests.functional.cases import distributions, heads, numbers, vectors

CASES = {**vectors.CASES, **heads.CASES, **distributions.CASES, **numbers.CASES}


def having(this=lambda case: True):
    """A test for every function that has what the property is about."""
    return pytest.mark.parametrize("name", [name for name, case in CASES.items() if this(case)])
