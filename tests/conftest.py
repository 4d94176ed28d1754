"""Settings for all tests, and which of them are slow."""

import gc
import os
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, settings

# Lightning calls what jsonargparse has deprecated; that is between the two of them.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

# The same few examples each time; many, and others: pytest --hypothesis-profile thorough.
_SLOW = [HealthCheck.too_slow]
settings.register_profile(
    "few", derandomize=True, max_examples=10, deadline=None, suppress_health_check=_SLOW
)
settings.register_profile(
    "thorough", max_examples=150, deadline=None, suppress_health_check=_SLOW, print_blob=True
)
settings.load_profile("few")


@pytest.hookimpl(tryfirst=True)  # before pytest looks at `-m`
def pytest_collection_modifyitems(items):
    """Mark the cases of a test with ``few(n)`` as slow, except n of them, evenly spread."""
    cases = defaultdict(list)
    for item in items:
        if item.get_closest_marker("few"):
            cases[item.nodeid.partition("[")[0]].append(item)
    for these in cases.values():
        (kept,) = these[0].get_closest_marker("few").args
        quick = {index * len(these) // kept for index in range(kept)}
        for index, item in enumerate(these):
            if index not in quick:
                item.add_marker("slow")


def pytest_collection_finish():
    """Keep what is imported by now out of each garbage collection: nearly a million objects."""
    gc.freeze()
