"""Every public name of ``functional``, with the properties that it has."""

from tests.functional.cases import distributions, heads, numbers, vectors

CASES = {**vectors.CASES, **heads.CASES, **distributions.CASES, **numbers.CASES}
