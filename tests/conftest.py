"""Settings for all tests."""

import os

# Lightning calls what jsonargparse has deprecated; that is between the two of them.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")


def pytest_collection_modifyitems(items):
    """Notebooks first: the longest tests, which at the end would leave a worker without work."""
    items.sort(key=lambda item: not item.name.startswith("test_notebook_runs"))
