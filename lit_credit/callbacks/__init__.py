"""Diagnostics as Callbacks, for rules of lit_credit and for any LightningModule."""

from lit_credit.callbacks.adder_anatomy import AdderAnatomy
from lit_credit.callbacks.attention_maps import AttentionMaps
from lit_credit.callbacks.base.contexts import ContextDiagnostic
from lit_credit.callbacks.base.diagnostic import Diagnostic
from lit_credit.callbacks.base.probe import ProbeDiagnostic
from lit_credit.callbacks.circuit_matching import CircuitMatching
from lit_credit.callbacks.credit_alignment import CreditAlignment
from lit_credit.callbacks.embedding_geometry import EmbeddingGeometry
from lit_credit.callbacks.exact_divergence import ExactDivergence
from lit_credit.callbacks.finite_guard import FiniteGuard
from lit_credit.callbacks.gradient_norms import GradientNorms
from lit_credit.callbacks.head_attribution import HeadAttribution
from lit_credit.callbacks.head_behaviour import HeadBehaviour
from lit_credit.callbacks.log_prob_theory import LogProbTheory
from lit_credit.callbacks.member_checkpoints import MemberCheckpoints
from lit_credit.callbacks.metric_history import MetricHistory
from lit_credit.callbacks.part_freezing import PartFreezing
from lit_credit.callbacks.reference_validity import ReferenceValidity
from lit_credit.callbacks.residual_norms import ResidualNorms
from lit_credit.callbacks.scale_stability import ScaleStability
from lit_credit.callbacks.softmax_jacobian import SoftmaxJacobian
from lit_credit.callbacks.staged_training import StagedTraining
from lit_credit.callbacks.subspace_distance import SubspaceDistance
from lit_credit.callbacks.symbol_attention import SymbolAttention
from lit_credit.callbacks.text_samples import TextSamples
from lit_credit.callbacks.weight_alignment import WeightAlignment

__all__ = [
    "AdderAnatomy",
    "AttentionMaps",
    "CircuitMatching",
    "ContextDiagnostic",
    "CreditAlignment",
    "Diagnostic",
    "EmbeddingGeometry",
    "ExactDivergence",
    "FiniteGuard",
    "GradientNorms",
    "HeadAttribution",
    "HeadBehaviour",
    "LogProbTheory",
    "MemberCheckpoints",
    "MetricHistory",
    "PartFreezing",
    "ProbeDiagnostic",
    "ReferenceValidity",
    "ResidualNorms",
    "ScaleStability",
    "SoftmaxJacobian",
    "StagedTraining",
    "SubspaceDistance",
    "SymbolAttention",
    "TextSamples",
    "WeightAlignment",
]
