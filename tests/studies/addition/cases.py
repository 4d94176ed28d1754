"""The public functions of the study, with their properties; see ``tests/functional/case.py``."""

import math

from lit_credit.studies import addition
from tests.functional.case import Case
from tests.functional.strategies import distribution, flags, index, number, positive, real, whole

INF = math.inf

CASES = {
    "digit_readout": Case(
        addition.digit_readout,
        {"points": real("n 2"), "matrix": real("d 2")},
        degrees={"points": (1, 0, None, None, None), "matrix": (1, 0, 0, 0, 0)},
        partial=("points",),
    ),
    "place_value_ratio": Case(
        addition.place_value_ratio,
        {
            "attention": distribution("r t"),
            "rows": index("b", below="r"),
            "own": index("b s", below="t"),
            "leak": index("b k", below="t"),
        },
        rows=0,
        bounds=(0, INF),
        partial=("attention",),
    ),
    "force_ratio": Case(
        addition.force_ratio,
        {
            "attention": distribution("r t"),
            "rows": index("c", below="1"),
            "own": index("c s", below="1"),
            "leak": index("c k", below="t"),
            "ratio": number(0.25),
        },
        partial=("attention",),
    ),
    "without_source": Case(
        addition.without_source,
        {
            "attention": distribution("r t"),
            "rows": index("c", below="r"),
            "source": index("c", below="t"),
        },
        partial=("attention",),
    ),
    "best_ratio": Case(
        addition.best_ratio,
        {"ratios": positive("k"), "exact": positive("k")},
        degrees={"ratios": 1},
        partial=("ratios",),
    ),
    "column_errors": Case(
        addition.column_errors,
        {"wrong": flags("n b"), "carries": flags("n b")},
        rows=0,
        bounds=(0, 1),
    ),
    "exact_by_run": Case(
        addition.exact_by_run,
        {"right": flags("n"), "runs": index("n", below="n"), "longest": whole(2)},
        bounds=(0, 1),
    ),
    "digit_differences": Case(
        addition.digit_differences,
        {
            "predicted": index("n m", below="10"),
            "target": index("n m", below="10"),
            "carries": flags("n m"),
        },
        bounds=lambda sizes: (0, sizes["n"] * sizes["m"]),
    ),
}
