"""Circuits of heads, and what heads attend to."""

import math

from lit_credit import functional
from tests.functional.case import Case, of_factors
from tests.functional.strategies import (
    all_true,
    choice,
    distribution,
    positive,
    real,
    whole,
)

INF = math.inf
UP_TO_KEYS = {"attention": distribution("b t s"), "allowed": all_true("t s")}
SQUARE = {"t": (4, 5)}


def _matrix_numbers(a):
    return a.dense(), (a @ a.T).trace(), a.sum(), a.norm(), a.T.norm(), (a @ a.T).T.dense()


def _decomposed(a):
    u, s, v = a.svd()
    return s, u @ u.mT, v @ v.mT


def _gradients(attention, credit, allowed):
    return functional.softmax_gradients(attention, credit, allowed)


def _factors(dims, *names):
    """Left and right factors of circuits, of one size."""
    return {f"{name}_{side}": real(dims) for name in names for side in ("left", "right")}


def _scale_free(arguments):
    return dict.fromkeys((name for name in arguments if "_" in name), 0)


def _score(function, **more):
    """A share of the attention, head by head."""
    arguments = {"attention": distribution("n b t t"), **more}
    return Case(
        function,
        arguments,
        sizes=SQUARE,
        rows=0,
        bounds=(0, 1),
        double=True,
        partial=("attention",),
    )


CASES = {
    "FactoredMatrix": Case(
        of_factors(_matrix_numbers, "a"),
        _factors("b m k", "a"),
        rows=0,
        degrees=dict.fromkeys(("a_left", "a_right"), (1, None, 1, 1, 1, None)),
        partial=("a_left", "a_right"),
    ),
    "SVD": Case(
        of_factors(_decomposed, "a"),
        _factors("b m k", "a"),
        rows=0,
        degrees=dict.fromkeys(("a_left", "a_right"), (1, 0, 0)),
    ),
    "product_norm": Case(
        of_factors(functional.product_norm, "a", "b"),
        _factors("b m k", "a", "b"),
        rows=0,
        bounds=(0, INF),
        degrees=dict.fromkeys(_factors("", "a", "b"), 1),
    ),
    "qk_circuit": Case(
        functional.qk_circuit,
        {"query": real("b d k"), "key": real("b d k"), "rotation": real("k k")},
        rows=0,
        degrees={"query": 1, "key": 1, "rotation": 1},
        partial=("query", "key"),
    ),
    "ov_circuit": Case(
        functional.ov_circuit,
        {"output": real("b d k"), "value": real("b d k")},
        rows=0,
        degrees={"output": 1, "value": 1},
        partial=("output", "value"),
    ),
    "composition_scores": Case(
        of_factors(functional.composition_scores, "qk", "ov", "writer"),
        _factors("b d k", "qk", "ov", "writer"),
        rows=0,
        bounds=(0, 1),
        degrees={
            **dict.fromkeys(("qk_left", "qk_right"), (0, 0, None)),
            **dict.fromkeys(("ov_left", "ov_right"), (None, None, 0)),
            **dict.fromkeys(("writer_left", "writer_right"), 0),
        },
        partial=("qk_left", "qk_right", "ov_left", "ov_right"),
        covers=("CompositionScores",),
    ),
    "diagonal_score": Case(
        of_factors(functional.diagonal_score, "qk", "ov"),
        _factors("b d k", "qk", "ov"),
        sizes={"d": (2, 4)},
        rows=0,
        bounds=lambda sizes: (-math.sqrt(sizes["d"]), math.sqrt(sizes["d"] - 1)),
        degrees=_scale_free(_factors("", "qk", "ov")),
    ),
    "token_mismatch": Case(
        of_factors(functional.token_mismatch, "qk", "ov"),
        {"embedding": real("v d"), **_factors("b d k", "qk", "ov")},
        rows=0,
        bounds=(0, 1),
        degrees={"embedding": 0, **_scale_free(_factors("", "qk", "ov"))},
    ),
    "attention_entropy": Case(
        functional.attention_entropy,
        UP_TO_KEYS,
        rows=0,
        bounds=lambda sizes: (0, math.log(sizes["s"])),
        double=True,
        partial=("attention",),
    ),
    "effective_keys": Case(
        functional.effective_keys,
        UP_TO_KEYS,
        rows=0,
        bounds=lambda sizes: (1, sizes["s"]),
        double=True,
        partial=("attention",),
    ),
    "is_softmax": Case(
        functional.is_softmax, UP_TO_KEYS, rows=0, bounds=(0, 1), partial=("attention",)
    ),
    "mean_attention": Case(
        functional.mean_attention, UP_TO_KEYS, rows=0, bounds=(0, 1), double=True
    ),
    "softmax_gradients": Case(
        _gradients,
        {**UP_TO_KEYS, "credit": real("b t s")},
        rows=0,
        degrees={"credit": 1},
        double=True,
        partial=("attention", "credit"),
        covers=("SoftmaxGradients",),
    ),
    "softmax_energies": Case(
        lambda **arguments: functional.softmax_energies(_gradients(**arguments)),
        {**UP_TO_KEYS, "credit": real("b t s")},
        rows=0,
        degrees={"credit": 0},
        double=True,
        covers=("SoftmaxEnergies", "EnergySums", "energy_sums", "energy_shares"),
    ),
    "softmax_cosines": Case(
        lambda **arguments: functional.softmax_cosines(_gradients(**arguments)),
        {**UP_TO_KEYS, "credit": real("b t s")},
        rows=0,
        bounds=(-1, 1),
        degrees={"credit": 0},
        double=True,
        covers=("SoftmaxCosines",),
    ),
    "previous_token_score": _score(functional.previous_token_score),
    "induction_score": _score(functional.induction_score, period=whole(2)),
    "duplicate_token_score": _score(functional.duplicate_token_score, period=whole(2)),
    "rotary_matrix": Case(
        functional.rotary_matrix,
        {
            "frequencies": positive("p"),
            "distance": real("b"),
            "d_head": whole(lambda sizes: 2 * sizes["p"] + 1),
            "layout": choice("interleaved", "half", "pairs"),
        },
        rows=0,
        bounds=(-1, 1),
        partial=("frequencies", "distance"),
        covers=("RotaryLayout",),
    ),
}
