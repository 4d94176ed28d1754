"""Diagnostics that compare the predictions of a network with a known distribution."""

from lit_credit.callbacks.distributions.divergence_figure import divergence_figure
from lit_credit.callbacks.distributions.exact_divergence import ExactDivergence

__all__ = [
    "ExactDivergence",
    "divergence_figure",
]
