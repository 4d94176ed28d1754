"""Diagnostics of attention heads: maps, scores, circuits, the gradient of the softmax."""

from lit_credit.callbacks.heads.attention_grid import attention_grid
from lit_credit.callbacks.heads.attention_maps import AttentionMaps
from lit_credit.callbacks.heads.attribution_figure import attribution_figure
from lit_credit.callbacks.heads.circuit_figure import circuit_figure
from lit_credit.callbacks.heads.circuit_matching import CircuitMatching
from lit_credit.callbacks.heads.head_attribution import HeadAttribution
from lit_credit.callbacks.heads.head_behaviour import HeadBehaviour
from lit_credit.callbacks.heads.softmax_jacobian import SoftmaxJacobian
from lit_credit.callbacks.heads.symbol_attention import SymbolAttention
from lit_credit.callbacks.heads.symbol_maps import symbol_maps

__all__ = [
    "AttentionMaps",
    "CircuitMatching",
    "HeadAttribution",
    "HeadBehaviour",
    "SoftmaxJacobian",
    "SymbolAttention",
    "attention_grid",
    "attribution_figure",
    "circuit_figure",
    "symbol_maps",
]
