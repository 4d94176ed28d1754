"""Figures: rows of a history in, a matplotlib Figure out; no pyplot and no global state."""

from typing import TYPE_CHECKING

from lit_credit.former_names import former_names
from lit_credit.plotting.head_heatmaps import HeadPanel, head_heatmaps
from lit_credit.plotting.layer_curves import layer_curves
from lit_credit.plotting.ranges import Level
from lit_credit.plotting.signed_heatmaps import SignedMap, signed_heatmaps

__all__ = [
    "HeadPanel",
    "Level",
    "SignedMap",
    "head_heatmaps",
    "layer_curves",
    "signed_heatmaps",
]

if not TYPE_CHECKING:
    __getattr__ = former_names(__name__)
