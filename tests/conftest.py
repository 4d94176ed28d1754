"""Settings for all tests."""

import os

# Lightning calls what jsonargparse has deprecated; that is between the two of them.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
