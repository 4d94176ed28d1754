"""Logits and what is known of the distributions that they should have."""

import math

from lit_credit import functional
from tests.functional.case import Case
from tests.functional.strategies import choice, distribution, index, number, real, whole

INF = math.inf
PAIR = {"logits": real("b m n"), "probs": distribution("b m n")}


def _subspace(probs, rank):
    directions = functional.log_prob_directions(probs, rank)
    return directions @ directions.mT


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
}
