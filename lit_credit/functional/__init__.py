"""Diagnostic quantities as pure functions: tensors in, tensors out, without a graph."""

from typing import TYPE_CHECKING

from lit_credit.former_names import former_names
from lit_credit.functional.aggregate import MeanAndSd, geometric_mean, mean_and_sd
from lit_credit.functional.attention_entropy import (
    attention_entropy,
    effective_keys,
    is_softmax,
    mean_attention,
)
from lit_credit.functional.circuits import ov_circuit, qk_circuit
from lit_credit.functional.composition_scores import (
    CompositionScores,
    composition_null,
    composition_scores,
)
from lit_credit.functional.credit_function import (
    relative_step,
    sample_correlation,
    sample_products,
)
from lit_credit.functional.diagonal_score import diagonal_score, diagonal_score_null_sd
from lit_credit.functional.embedding_geometry import (
    cosine_matrix,
    feature_dimensionality,
    mean_squared_cosine,
    welch_bound,
)
from lit_credit.functional.factored_matrix import SVD, FactoredMatrix, product_norm
from lit_credit.functional.gradient_cosine import gradient_cosine
from lit_credit.functional.gradient_noise import NoiseScale, noise_scale
from lit_credit.functional.head_scores import (
    duplicate_token_score,
    induction_score,
    previous_token_score,
    repeated_tokens,
)
from lit_credit.functional.layer_probes import RidgeProbe, ridge_probe
from lit_credit.functional.leading_directions import leading_directions
from lit_credit.functional.log_probs import centred_log_probs, log_prob_directions
from lit_credit.functional.logit_attribution import (
    SharedWork,
    logit_attribution,
    shared_work,
    through_frozen_norm,
)
from lit_credit.functional.match_baseline import MatchBaseline, match_baseline
from lit_credit.functional.memorization_bound import accuracy_bound, association_bound
from lit_credit.functional.norms import frobenius_norm, sample_norms
from lit_credit.functional.participation_ratio import participation_ratio
from lit_credit.functional.position_matching import PositionMatching, position_matching
from lit_credit.functional.projector_distance import projector_distance, projector_distance_null
from lit_credit.functional.representations import linear_cka
from lit_credit.functional.rotary import RotaryLayout, rotary_frequencies, rotary_matrix
from lit_credit.functional.sample_tokens import sample_tokens
from lit_credit.functional.scale_stability import ScaleFlags, growth, scale_flags
from lit_credit.functional.screenot_rank import screenot_rank
from lit_credit.functional.sharpness import ExtremeEigenvalues, extreme_eigenvalues
from lit_credit.functional.signal_rank import (
    SpectrumRanks,
    effective_rank,
    gram_spectrum,
    spectrum_ranks,
    stable_rank,
)
from lit_credit.functional.softmax_divergence import (
    logit_margins,
    softmax_divergence,
    top_probability,
)
from lit_credit.functional.softmax_jacobian import (
    EnergySums,
    SoftmaxCosines,
    SoftmaxEnergies,
    SoftmaxGradients,
    energy_shares,
    energy_sums,
    softmax_cosines,
    softmax_energies,
    softmax_gradients,
)
from lit_credit.functional.step_quality import fitted_minimum, step_alpha
from lit_credit.functional.subspace_match import SubspaceMatch, principal_angles, subspace_match
from lit_credit.functional.token_mismatch import token_mismatch
from lit_credit.functional.update_ratios import (
    dead_share,
    joint_norm,
    saturated_share,
    update_ratio,
)
from lit_credit.functional.weight_alignment import norm_ratio, weight_angle

__all__ = [
    "SVD",
    "CompositionScores",
    "EnergySums",
    "ExtremeEigenvalues",
    "FactoredMatrix",
    "MatchBaseline",
    "MeanAndSd",
    "NoiseScale",
    "PositionMatching",
    "RidgeProbe",
    "RotaryLayout",
    "ScaleFlags",
    "SharedWork",
    "SoftmaxCosines",
    "SoftmaxEnergies",
    "SoftmaxGradients",
    "SpectrumRanks",
    "SubspaceMatch",
    "accuracy_bound",
    "association_bound",
    "attention_entropy",
    "centred_log_probs",
    "composition_null",
    "composition_scores",
    "cosine_matrix",
    "dead_share",
    "diagonal_score",
    "diagonal_score_null_sd",
    "duplicate_token_score",
    "effective_keys",
    "effective_rank",
    "energy_shares",
    "energy_sums",
    "extreme_eigenvalues",
    "feature_dimensionality",
    "fitted_minimum",
    "frobenius_norm",
    "geometric_mean",
    "gradient_cosine",
    "gram_spectrum",
    "growth",
    "induction_score",
    "is_softmax",
    "joint_norm",
    "leading_directions",
    "linear_cka",
    "log_prob_directions",
    "logit_attribution",
    "logit_margins",
    "match_baseline",
    "mean_and_sd",
    "mean_attention",
    "mean_squared_cosine",
    "noise_scale",
    "norm_ratio",
    "ov_circuit",
    "participation_ratio",
    "position_matching",
    "previous_token_score",
    "principal_angles",
    "product_norm",
    "projector_distance",
    "projector_distance_null",
    "qk_circuit",
    "relative_step",
    "repeated_tokens",
    "ridge_probe",
    "rotary_frequencies",
    "rotary_matrix",
    "sample_correlation",
    "sample_norms",
    "sample_products",
    "sample_tokens",
    "saturated_share",
    "scale_flags",
    "screenot_rank",
    "shared_work",
    "softmax_cosines",
    "softmax_divergence",
    "softmax_energies",
    "softmax_gradients",
    "spectrum_ranks",
    "stable_rank",
    "step_alpha",
    "subspace_match",
    "through_frozen_norm",
    "token_mismatch",
    "top_probability",
    "update_ratio",
    "weight_angle",
    "welch_bound",
]

if not TYPE_CHECKING:
    __getattr__ = former_names(__name__)
