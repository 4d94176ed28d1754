"""Diagnostics as Callbacks, for rules of lit_credit and for any LightningModule."""

from typing import TYPE_CHECKING

from lit_credit.callbacks.base.contexts import ContextDiagnostic
from lit_credit.callbacks.base.diagnostic import Diagnostic
from lit_credit.callbacks.base.probe import ProbeDiagnostic
from lit_credit.callbacks.credit.credit_alignment import CreditAlignment
from lit_credit.callbacks.credit.credit_function import CreditFunction
from lit_credit.callbacks.credit.gradient_noise import GradientNoise
from lit_credit.callbacks.credit.gradient_norms import GradientNorms
from lit_credit.callbacks.credit.reference_validity import ReferenceValidity
from lit_credit.callbacks.credit.scale_stability import ScaleStability
from lit_credit.callbacks.credit.sharpness import Sharpness
from lit_credit.callbacks.credit.step_quality import StepQuality
from lit_credit.callbacks.credit.update_ratios import UpdateRatios
from lit_credit.callbacks.credit.weight_alignment import WeightAlignment
from lit_credit.callbacks.distributions.exact_divergence import ExactDivergence
from lit_credit.callbacks.heads.attention_maps import AttentionMaps
from lit_credit.callbacks.heads.circuit_matching import CircuitMatching
from lit_credit.callbacks.heads.head_attribution import HeadAttribution
from lit_credit.callbacks.heads.head_behaviour import HeadBehaviour
from lit_credit.callbacks.heads.softmax_jacobian import SoftmaxJacobian
from lit_credit.callbacks.heads.symbol_attention import SymbolAttention
from lit_credit.callbacks.representations.embedding_geometry import EmbeddingGeometry
from lit_credit.callbacks.representations.layer_probes import LayerProbes
from lit_credit.callbacks.representations.representations import Representations
from lit_credit.callbacks.representations.residual_norms import ResidualNorms
from lit_credit.callbacks.representations.signal_rank import SignalRank
from lit_credit.callbacks.representations.subspace_distance import SubspaceDistance
from lit_credit.callbacks.training.finite_guard import FiniteGuard
from lit_credit.callbacks.training.member_checkpoints import MemberCheckpoints
from lit_credit.callbacks.training.metric_history import MetricHistory
from lit_credit.callbacks.training.part_freezing import PartFreezing
from lit_credit.callbacks.training.spaced_checkpoints import SpacedCheckpoints
from lit_credit.callbacks.training.staged_training import StagedTraining
from lit_credit.callbacks.training.text_samples import TextSamples
from lit_credit.former_names import former_names

__all__ = [
    "AttentionMaps",
    "CircuitMatching",
    "ContextDiagnostic",
    "CreditAlignment",
    "CreditFunction",
    "Diagnostic",
    "EmbeddingGeometry",
    "ExactDivergence",
    "FiniteGuard",
    "GradientNoise",
    "GradientNorms",
    "HeadAttribution",
    "HeadBehaviour",
    "LayerProbes",
    "MemberCheckpoints",
    "MetricHistory",
    "PartFreezing",
    "ProbeDiagnostic",
    "ReferenceValidity",
    "Representations",
    "ResidualNorms",
    "ScaleStability",
    "Sharpness",
    "SignalRank",
    "SoftmaxJacobian",
    "SpacedCheckpoints",
    "StagedTraining",
    "StepQuality",
    "SubspaceDistance",
    "SymbolAttention",
    "TextSamples",
    "UpdateRatios",
    "WeightAlignment",
]

if not TYPE_CHECKING:
    __getattr__ = former_names(__name__)
