"""Settings for all tests."""

import gc
import os

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


def pytest_collection_finish():
    """Keep what is imported by now out of each garbage collection: nearly a million objects."""
    gc.freeze()
