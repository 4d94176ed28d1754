"""Logits and what is known of the distributions that they should have."""

import math

from lit_credit import functional
from lit_credit.studies import ngram
from tests.functional.cases.case import Case
from tests.functional.strategies import choice, distribution, index, number, real, whole

INF = math.inf
THEORY = {"unembedding": real("n d"), "probs": distribution("b n"), "bias": real("n")}
KNOWN = {"prior": distribution("t"), "rows": distribution("t v")}
PAIR = {"logits": real("b m n"), "probs": distribution("b m n")}


def _subspace(probs, rank):
    directions = functional.log_prob_directions(probs, rank)
    return directions @ directions.mT


def _log_symbols(sizes):
    return 0, math.log(sizes["v"])


CASES = {
    "centred_log_probs": Case(
        functional.centred_log_probs,
        {"probs": distribution("b n")},
        rows=0,
        double=True,
        partial=("probs",),
    ),
    "log_prob_directions": Case(
        _subspace,
        {"probs": distribution("m n"), "rank": whole(1)},
        bounds=(-1, 1),
        double=True,
    ),
    "low_rank_log_probs": Case(
        functional.low_rank_log_probs,
        {"probs": distribution("m n"), "rank": whole(1)},
        double=True,
    ),
    "log_ratio_fluctuation": Case(
        functional.log_ratio_fluctuation, PAIR, rows=0, double=True, partial=tuple(PAIR)
    ),
    "second_order_contexts": Case(
        functional.second_order_contexts, THEORY, sizes={"d": (1, 2)}, rows=0, double=True
    ),
    "optimal_contexts": Case(
        ngram.optimal_contexts,
        THEORY,
        sizes={"d": (1, 2)},
        rows=0,
        double=True,
        tolerance=1e-5,  # where the loss is as small as it can be told to be
    ),
    "softmax_divergence": Case(
        functional.softmax_divergence,
        PAIR,
        rows=0,
        bounds=(0, INF),
        double=True,
        partial=tuple(PAIR),
    ),
    "top_probability": Case(
        functional.top_probability,
        PAIR,
        rows=0,
        bounds=(0, 1),
        double=True,
        partial=tuple(PAIR),
    ),
    "logit_margins": Case(
        functional.logit_margins,
        {"logits": real("b n"), "target": index("b", below="n")},
        sizes={"n": (2, 4)},
        rows=0,
        degrees={"logits": 1},
        double=True,
    ),
    "logit_attribution": Case(
        functional.logit_attribution,
        {"parts": real("b m d"), "unembedding": real("n d")},
        rows=0,
        degrees={"parts": 1, "unembedding": 1},
        partial=("parts", "unembedding"),
    ),
    "through_frozen_norm": Case(
        functional.through_frozen_norm,
        {
            "parts": real("p b d"),
            "stream": real("b d"),
            "gain": real("d"),
            "eps": number(1e-5),
            "centred": choice(True, False),
        },
        rows=1,
        degrees={"parts": 1, "gain": 1},
        partial=("parts", "stream", "gain"),
    ),
    "shared_work": Case(
        functional.shared_work,
        {"margins": real("p m")},
        bounds=(0, 1),
        double=True,
        partial=("margins",),
        covers=("SharedWork",),
    ),
    "min_norm_coordinates": Case(
        ngram.min_norm_coordinates,
        {"stream": real("b d"), "unembedding": real("n d")},
        rows=0,
        degrees={"stream": 1, "unembedding": -1},
    ),
    "conditional_entropy": Case(
        ngram.conditional_entropy, KNOWN, bounds=lambda sizes: _log_symbols(sizes)
    ),
    "random_baseline": Case(ngram.random_baseline, KNOWN, bounds=_log_symbols),
    "max_accuracy": Case(ngram.max_accuracy, KNOWN, bounds=lambda s: (1 / s["v"], 1)),
}
