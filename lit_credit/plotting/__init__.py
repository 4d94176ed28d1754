"""Figures: rows of a history in, a matplotlib Figure out; no pyplot and no global state."""

from lit_credit.plotting.comparison_figure import comparison_figure
from lit_credit.plotting.layer_curves import layer_curves
from lit_credit.plotting.parameter_bars import parameter_bars

__all__ = ["comparison_figure", "layer_curves", "parameter_bars"]
