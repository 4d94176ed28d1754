"""Diagnostics of the vectors inside a network: norms, geometry, subspaces, probes."""

from lit_credit.callbacks.representations.embedding_geometry import EmbeddingGeometry
from lit_credit.callbacks.representations.layer_probes import LayerProbes
from lit_credit.callbacks.representations.representations import Representations
from lit_credit.callbacks.representations.residual_norms import ResidualNorms
from lit_credit.callbacks.representations.signal_rank import SignalRank
from lit_credit.callbacks.representations.subspace_distance import SubspaceDistance

__all__ = [
    "EmbeddingGeometry",
    "LayerProbes",
    "Representations",
    "ResidualNorms",
    "SignalRank",
    "SubspaceDistance",
]
