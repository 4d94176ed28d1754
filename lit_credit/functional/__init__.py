"""Diagnostic quantities as pure functions: tensors in, tensors out, without a graph."""

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
from lit_credit.functional.diagonal_score import diagonal_score, diagonal_score_null_sd
from lit_credit.functional.factored_matrix import SVD, FactoredMatrix, product_norm
from lit_credit.functional.gradient_cosine import gradient_cosine
from lit_credit.functional.head_scores import (
    duplicate_token_score,
    induction_score,
    previous_token_score,
    repeated_tokens,
)
from lit_credit.functional.leading_directions import leading_directions
from lit_credit.functional.match_baseline import MatchBaseline, match_baseline
from lit_credit.functional.norms import frobenius_norm, sample_norms
from lit_credit.functional.position_matching import PositionMatching, position_matching
from lit_credit.functional.rotary import RotaryLayout, rotary_frequencies, rotary_matrix
from lit_credit.functional.sample_tokens import sample_tokens
from lit_credit.functional.scale_stability import ScaleFlags, growth, scale_flags
from lit_credit.functional.screenot_rank import screenot_rank
from lit_credit.functional.softmax_jacobian import (
    SoftmaxCosines,
    SoftmaxEnergies,
    SoftmaxGradients,
    softmax_cosines,
    softmax_energies,
    softmax_gradients,
)
from lit_credit.functional.subspace_match import SubspaceMatch, principal_angles, subspace_match
from lit_credit.functional.token_mismatch import token_mismatch
from lit_credit.functional.weight_alignment import norm_ratio, weight_angle

__all__ = [
    "SVD",
    "CompositionScores",
    "FactoredMatrix",
    "MatchBaseline",
    "MeanAndSd",
    "PositionMatching",
    "RotaryLayout",
    "ScaleFlags",
    "SoftmaxCosines",
    "SoftmaxEnergies",
    "SoftmaxGradients",
    "SubspaceMatch",
    "attention_entropy",
    "composition_null",
    "composition_scores",
    "diagonal_score",
    "diagonal_score_null_sd",
    "duplicate_token_score",
    "effective_keys",
    "frobenius_norm",
    "geometric_mean",
    "gradient_cosine",
    "growth",
    "induction_score",
    "is_softmax",
    "leading_directions",
    "match_baseline",
    "mean_and_sd",
    "mean_attention",
    "norm_ratio",
    "ov_circuit",
    "position_matching",
    "previous_token_score",
    "principal_angles",
    "product_norm",
    "qk_circuit",
    "repeated_tokens",
    "rotary_frequencies",
    "rotary_matrix",
    "sample_norms",
    "sample_tokens",
    "scale_flags",
    "screenot_rank",
    "softmax_cosines",
    "softmax_energies",
    "softmax_gradients",
    "subspace_match",
    "token_mismatch",
    "weight_angle",
]
