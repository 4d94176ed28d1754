"""The public functions of the study, with their properties; see ``tests/functional/case.py``."""

import math

from lit_credit.studies import ngram
from tests.functional.case import Case
from tests.functional.strategies import distribution, real, whole

THEORY = {"unembedding": real("n d"), "probs": distribution("b n"), "bias": real("n")}
KNOWN = {"prior": distribution("t"), "rows": distribution("t v")}
PAIR = {"logits": real("b m n"), "probs": distribution("b m n")}


def _log_symbols(sizes):
    return 0, math.log(sizes["v"])


CASES = {
    "low_rank_log_probs": Case(
        ngram.low_rank_log_probs,
        {"probs": distribution("m n"), "rank": whole(1)},
        double=True,
    ),
    "log_ratio_fluctuation": Case(
        ngram.log_ratio_fluctuation, PAIR, rows=0, double=True, partial=tuple(PAIR)
    ),
    "second_order_contexts": Case(
        ngram.second_order_contexts, THEORY, sizes={"d": (1, 2)}, rows=0, double=True
    ),
    "optimal_contexts": Case(
        ngram.optimal_contexts,
        THEORY,
        sizes={"d": (1, 2)},
        rows=0,
        double=True,
        tolerance=1e-5,  # where the loss is as small as it can be told to be
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
