"""Checks for authors of diagnostics in other packages; they need no test framework."""

from lit_credit.testing.check import SmallNet, check_diagnostic
from lit_credit.testing.modules import KINDS
from lit_credit.testing.stateful import STATES, StatefulNet

__all__ = ["KINDS", "STATES", "SmallNet", "StatefulNet", "check_diagnostic"]
