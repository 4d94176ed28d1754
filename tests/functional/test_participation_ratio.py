"""The participation ratio without a decomposition."""

import math

import pytest
import torch

from lit_credit.functional import participation_ratio
from tests.functional.heads import randn


def test_against_traces_of_the_gram_matrix():
    a = randn(3, 7, 4, seed=0)
    for matrix, found in zip(a, participation_ratio(a), strict=True):
        gram = matrix.T @ matrix
        assert found.item() == pytest.approx((gram.trace() ** 2 / (gram @ gram).trace()).item())


def test_its_range_and_scales():
    assert participation_ratio(randn(5, 1) @ randn(1, 6, seed=1)).item() == pytest.approx(1)
    for scale in (1e-200, 1.0, 1e200):
        assert participation_ratio(scale * torch.eye(4).double()).item() == pytest.approx(4)


def test_what_has_no_rank_is_nan():
    for value in (0.0, math.nan, math.inf):
        assert math.isnan(participation_ratio(torch.full((2, 2), value)).item())
