"""Figures: rows of a history in, a matplotlib Figure out; no pyplot and no global state."""

from lit_credit.plotting.adder_findings import AdderFindings
from lit_credit.plotting.adder_sheet import adder_sheet
from lit_credit.plotting.attention_grid import attention_grid
from lit_credit.plotting.attribution_figure import attribution_figure
from lit_credit.plotting.circuit_figure import circuit_figure
from lit_credit.plotting.comparison_figure import comparison_figure
from lit_credit.plotting.divergence_figure import divergence_figure
from lit_credit.plotting.head_heatmaps import HeadPanel, head_heatmaps
from lit_credit.plotting.layer_curves import layer_curves
from lit_credit.plotting.parameter_bars import parameter_bars
from lit_credit.plotting.signed_heatmaps import SignedMap, signed_heatmaps
from lit_credit.plotting.symbol_maps import symbol_maps
from lit_credit.plotting.theory_figure import theory_figure

__all__ = [
    "AdderFindings",
    "HeadPanel",
    "SignedMap",
    "adder_sheet",
    "attention_grid",
    "attribution_figure",
    "circuit_figure",
    "comparison_figure",
    "divergence_figure",
    "head_heatmaps",
    "layer_curves",
    "parameter_bars",
    "signed_heatmaps",
    "symbol_maps",
    "theory_figure",
]
