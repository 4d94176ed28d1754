"""Comparing runs by a table and figures of the quantities that their classes declare."""

from lit_credit.comparison.figure import comparison_figure
from lit_credit.comparison.known import rule_colors
from lit_credit.comparison.report import compare

__all__ = ["compare", "comparison_figure", "rule_colors"]
