"""What is counted, drawn, or known without tensors."""

import math

import torch
from hypothesis import strategies as st
from torch import Generator

from lit_credit import functional
from tests.functional.case import Case
from tests.functional.strategies import Given, index, number, whole

INF = math.inf


def _drawn_blocks(seed, **sizes):
    generator = Generator().manual_seed(max(seed, 0))
    return functional.repeated_tokens(**sizes, generator=generator)


def _drawn_tokens(scores, prompt, seed, **arguments):
    generator = Generator().manual_seed(max(seed, 0))
    return functional.sample_tokens(
        lambda x: torch.tensor(scores).expand(*x.shape, -1),
        prompt,
        **arguments,
        generator=generator,
    )


CASES = {
    "repeated_tokens": Case(
        _drawn_blocks,
        {
            "n_samples": whole(2),
            "period": whole(3),
            "repeats": whole(2),
            "vocab_size": whole(5),
            "seed": whole(0),
        },
        bounds=(0, 4),
    ),
    "sample_tokens": Case(
        _drawn_tokens,
        {
            "scores": Given(
                lambda sizes: [0.0, -INF, 1.0],
                st.lists(st.sampled_from([0.0, 1.0, INF, -INF, math.nan]), max_size=3),
            ),
            "prompt": index("n", below="3"),
            "length": whole(3),
            "context": whole(2),
            "temperature": number(0.5),
            "seed": whole(0),
        },
        bounds=(0, 2),
    ),
    "match_baseline": Case(
        functional.match_baseline,
        {"d": whole(9), "rank": whole(3), "other_rank": whole(2)},
        bounds=(0, 1),
        covers=("MatchBaseline",),
    ),
    "projector_distance_null": Case(
        functional.projector_distance_null,
        {"dimension": whole(9), "rank": whole(3), "other_rank": whole(2)},
        bounds=(0, INF),
    ),
    "composition_null": Case(functional.composition_null, {"d": whole(9)}, bounds=(0, 1)),
    "diagonal_score_null_sd": Case(
        functional.diagonal_score_null_sd, {"d": whole(9)}, bounds=(0, 1)
    ),
    "welch_bound": Case(
        functional.welch_bound, {"count": whole(5), "dimension": whole(3)}, bounds=(0, 1)
    ),
    "association_bound": Case(
        functional.association_bound,
        {"heads": whole(2), "head_size": whole(3), "width": whole(4)},
        bounds=(1, INF),
    ),
    "accuracy_bound": Case(
        functional.accuracy_bound,
        {"associations": number(9.0), "contexts": whole(20), "vocab_size": whole(5)},
        bounds=(0, 1),
    ),
    "rotary_frequencies": Case(
        functional.rotary_frequencies,
        {"rotary_dim": whole(4), "theta": number(100.0)},
        bounds=(0, INF),
        double=True,
    ),
    "scale_flags": Case(
        functional.scale_flags,
        {
            "growth": number(2.0),
            "accuracy": number(0.9),
            "frozen_accuracy": number(0.5),
            "reference_cosine": number(1.0),
        },
        bounds=(0, 1),
        covers=("ScaleFlags",),
    ),
}
