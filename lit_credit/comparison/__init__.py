"""Comparing runs by a table and figures of the quantities that their classes declare."""

from typing import TYPE_CHECKING

from lit_credit.utils.late_names import late_names

if TYPE_CHECKING:
    from lit_credit.comparison.figure import comparison_figure
    from lit_credit.comparison.known import rule_colors
    from lit_credit.comparison.report import compare
    from lit_credit.comparison.representations import representation_similarity
    from lit_credit.comparison.result import Comparison
    from lit_credit.comparison.statistics import (
        Difference,
        detectable_difference,
        holm,
        paired_difference,
        welch_difference,
    )

__all__ = [
    "Comparison",
    "Difference",
    "compare",
    "comparison_figure",
    "detectable_difference",
    "holm",
    "paired_difference",
    "representation_similarity",
    "rule_colors",
    "welch_difference",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = late_names(
        __name__,
        {
            "report": "compare",
            "representations": "representation_similarity",
            "result": "Comparison",
            "figure": "comparison_figure",
            "known": "rule_colors",
            "statistics": "Difference detectable_difference holm paired_difference "
            "welch_difference",
        },
    )
