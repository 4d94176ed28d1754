"""Norms, cosines and subspaces."""

import math

import torch

from lit_credit import functional
from tests.functional.case import Case
from tests.functional.strategies import (
    descending,
    number,
    orthonormal,
    positive,
    ranks,
    real,
    whole,
)

INF = math.inf


def _projector(directions):
    """What a set of directions spans, whatever their signs."""
    return directions @ directions.mT


def _leading_subspace(matrix, rank):
    return _projector(functional.leading_directions(matrix, rank))


def _ends_of_diagonal(diagonal):
    """Of the matrix that has these eigenvalues."""
    start = torch.ones(diagonal.shape[-1:] or (1,), dtype=torch.float64)
    return functional.extreme_eigenvalues(lambda v: diagonal * v, start, tolerance=0.0)[:2]


def _smaller(*letters):
    return whole(lambda sizes: min(sizes[letter] for letter in letters))


CASES = {
    "gradient_cosine": Case(
        functional.gradient_cosine,
        {"a": real("b f g"), "b": real("b f g")},
        rows=0,
        bounds=(-1, 1),
        degrees={"a": 0, "b": 0},
    ),
    "sample_norms": Case(
        functional.sample_norms, {"x": real("b f g")}, rows=0, bounds=(0, INF), degrees={"x": 1}
    ),
    "frobenius_norm": Case(
        functional.frobenius_norm, {"x": real("m n")}, bounds=(0, INF), degrees={"x": 1}
    ),
    "relative_step": Case(
        lambda value, direction: functional.relative_step(value, direction, 0.5),
        {"value": real("b f g"), "direction": real("b f g")},
        rows=0,
        degrees={"value": 1, "direction": 0},
    ),
    "sample_products": Case(
        functional.sample_products,
        {"a": real("b f g"), "b": real("b f g")},
        rows=0,
        degrees={"a": 1, "b": 1},
    ),
    "sample_correlation": Case(
        functional.sample_correlation,
        {"predicted": real("b k"), "observed": real("b k")},
        sizes={"k": (2, 5)},
        rows=0,
        bounds=(-1, 1),
        degrees={"predicted": 0, "observed": 0},
        double=True,
    ),
    "extreme_eigenvalues": Case(
        _ends_of_diagonal,
        {"diagonal": real("n")},
        degrees={"diagonal": 1},
        double=True,
        covers=("ExtremeEigenvalues",),
    ),
    "noise_scale": Case(
        functional.noise_scale,
        {
            "small": positive("b"),
            "big": positive("b"),
            "small_rows": whole(2),
            "big_rows": whole(8),
        },
        rows=0,
        double=True,
        covers=("NoiseScale",),
    ),
    "weight_angle": Case(
        functional.weight_angle,
        {"weight": real("m n"), "feedback": real("m n")},
        bounds=(0, 180),
        degrees={"weight": 0, "feedback": 0},
        double=True,
    ),
    "norm_ratio": Case(
        functional.norm_ratio,
        {"weight": real("m n"), "feedback": real("k")},
        bounds=(0, INF),
        degrees={"weight": -1, "feedback": 1},
        double=True,
    ),
    "ridge_probe": Case(
        functional.ridge_probe,
        {"x": real("n d"), "y": real("n c"), "strength": number(0.5)},
        sizes={"n": (2, 6)},
        degrees={"y": 1},
        double=True,
        covers=("RidgeProbe",),
    ),
    "linear_cka": Case(
        functional.linear_cka,
        {"x": real("n d"), "y": real("n e")},
        sizes={"n": (5, 7)},
        bounds=(-1, 1),
        degrees={"x": 0, "y": 0},
        double=True,
    ),
    "joint_norm": Case(
        lambda x, y: functional.joint_norm([x, y]),
        {"x": real("m n"), "y": real("k")},
        bounds=(0, INF),
        double=True,
    ),
    "update_ratio": Case(
        lambda update, weight: functional.update_ratio([update], [weight]),
        {"update": real("m n"), "weight": real("m n")},
        bounds=(0, INF),
        degrees={"update": 1, "weight": -1},
        double=True,
    ),
    "dead_share": Case(
        functional.dead_share,
        {"low": real("b"), "high": real("b")},
        bounds=(0, 1),
        double=True,
        partial=("low", "high"),
    ),
    "saturated_share": Case(
        functional.saturated_share,
        {"x": real("m n"), "low": number(-1.0), "high": number(1.0)},
        bounds=(0, 1),
        double=True,
        partial=("x", "low", "high"),
    ),
    "fitted_minimum": Case(
        functional.fitted_minimum,
        {"scales": real("s"), "losses": real("s")},
        sizes={"s": (3, 6)},
        double=True,
    ),
    "step_alpha": Case(
        functional.step_alpha,
        {"scales": real("s"), "losses": real("s")},
        sizes={"s": (3, 6)},
        bounds=(-1, INF),
        double=True,
    ),
    "growth": Case(
        functional.growth,
        {"last": positive("b"), "first": positive("b")},
        rows=0,
        bounds=(0, INF),
        degrees={"last": 1, "first": -1},
        double=True,
    ),
    "mean_and_sd": Case(
        functional.mean_and_sd,
        {"values": real("n b")},
        sizes={"n": (2, 4)},
        rows=0,
        degrees={"values": 1},
        double=True,
        covers=("MeanAndSd",),
    ),
    "geometric_mean": Case(
        functional.geometric_mean,
        {"values": positive("n b")},
        rows=0,
        bounds=(0, INF),
        degrees={"values": 1},
        double=True,
    ),
    "cosine_matrix": Case(
        functional.cosine_matrix,
        {"vectors": real("n d")},
        bounds=(-1, 1),
        degrees={"vectors": 0},
        double=True,
        partial=("vectors",),
    ),
    "mean_squared_cosine": Case(
        functional.mean_squared_cosine,
        {"vectors": real("n d")},
        sizes={"n": (2, 4)},
        bounds=(0, 1),
        degrees={"vectors": 0},
        double=True,
    ),
    "feature_dimensionality": Case(
        functional.feature_dimensionality,
        {"vectors": real("n d")},
        bounds=(0, 1),
        degrees={"vectors": 0},
        double=True,
    ),
    "participation_ratio": Case(
        functional.participation_ratio,
        {"matrix": real("b m n")},
        rows=0,
        bounds=lambda sizes: (1, min(sizes["m"], sizes["n"])),
        degrees={"matrix": 0},
        double=True,
    ),
    "effective_rank": Case(
        functional.effective_rank,
        {"matrix": real("b m n")},
        rows=0,
        bounds=lambda sizes: (1, min(sizes["m"], sizes["n"])),
        degrees={"matrix": 0},
        double=True,
    ),
    "stable_rank": Case(
        functional.stable_rank,
        {"matrix": real("b m n")},
        rows=0,
        bounds=lambda sizes: (1, min(sizes["m"], sizes["n"])),
        degrees={"matrix": 0},
        double=True,
    ),
    "spectrum_ranks": Case(
        functional.spectrum_ranks,
        {"singular_values": descending("b r")},
        rows=0,
        bounds=lambda sizes: (1, sizes["r"]),
        degrees={"singular_values": 0},
        double=True,
        covers=("SpectrumRanks",),
    ),
    "gram_spectrum": Case(
        functional.gram_spectrum,
        {"gram": real("b d d")},  # of which one triangle counts
        rows=0,
        bounds=(0, INF),
        degrees={"gram": 0.5},
        double=True,
        partial=("gram",),
    ),
    "leading_directions": Case(
        _leading_subspace,
        {"matrix": real("b m n"), "rank": _smaller("m", "n")},
        rows=0,
        bounds=(-1, 1),
        degrees={"matrix": 0},
    ),
    "subspace_match": Case(
        functional.subspace_match,
        {
            "reading": orthonormal("b d n"),
            "writing": orthonormal("b d k"),
            "ranks": ranks("n", "k"),
        },
        sizes={"d": (4, 5)},
        rows=0,
        bounds=(0, 1),
        partial=("reading", "writing"),
        covers=("SubspaceMatch",),
    ),
    "principal_angles": Case(
        functional.principal_angles,
        {"reading": orthonormal("b d n"), "writing": orthonormal("b d k")},
        sizes={"d": (4, 5)},
        rows=0,
        bounds=(0, math.pi / 2),
    ),
    "projector_distance": Case(
        functional.projector_distance,
        {"a": orthonormal("b d n"), "b": orthonormal("b d k")},
        sizes={"d": (4, 5)},
        rows=0,
        bounds=lambda sizes: (0, math.sqrt(sizes["n"] + sizes["k"])),
    ),
    "position_matching": Case(
        functional.position_matching,
        {"embedding": real("v d"), "weight": real("b d k"), "ranks": ranks("d", "k")},
        rows=0,
        bounds=(0, 1),
        degrees={"embedding": 0, "weight": 0},
        covers=("PositionMatching",),
    ),
    "screenot_rank": Case(
        lambda singular_values, p, n, max_rank: functional.screenot_rank(
            singular_values, (p, n), max_rank
        ),
        {
            "singular_values": descending("b r"),
            "p": whole(9),
            "n": whole(12),
            "max_rank": whole(2),
        },
        sizes={"r": (4, 9)},
        rows=0,
        bounds=(0, 2),
        partial=("singular_values",),
    ),
}
