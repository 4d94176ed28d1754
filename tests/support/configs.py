"""Configurations for runs from the command line."""

from pathlib import Path

WITHOUT_DIAGNOSTICS = Path(__file__).with_name("without_diagnostics.yaml")
"""Given behind another ``--config``: for tests that look at what a run writes besides."""
