"""Ranks of known spectra, against numpy."""

import math

import numpy as np
import pytest
import torch

from lit_credit.functional import (
    effective_rank,
    gram_spectrum,
    participation_ratio,
    spectrum_ranks,
    stable_rank,
)
from tests.functional.heads import randn, random_orthonormal


def with_spectrum(s, m=9, n=7):
    """A matrix of these singular values."""
    s = torch.as_tensor(s, dtype=torch.float64)
    u, v = random_orthonormal(m, len(s), seed=1), random_orthonormal(n, len(s), seed=2)
    return (u * s) @ v.T


def test_ranks_of_a_known_spectrum():
    s = np.array([4.0, 2.0, 1.0, 1.0])
    p = s / s.sum()
    expected = (
        math.exp(-(p * np.log(p)).sum()),
        (s**2).sum() / 16,
        (s**2).sum() ** 2 / (s**4).sum(),
    )
    a = with_spectrum(s)
    found = (effective_rank(a), stable_rank(a), participation_ratio(a))
    assert [x.item() for x in found] == pytest.approx(expected)
    of_spectrum = spectrum_ranks(torch.as_tensor(s))
    assert [x.item() for x in of_spectrum] == pytest.approx(expected)
    assert spectrum_ranks(torch.as_tensor(s[::-1].copy())).stable.item() == pytest.approx(22 / 16)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_equal_directions_are_counted(rank):
    a = with_spectrum([0.7] * rank)
    for found in (effective_rank(a), stable_rank(a), participation_ratio(a)):
        assert found.item() == pytest.approx(rank)


def test_a_deficient_product_has_no_more_directions_than_its_factors():
    a = randn(30, 2) @ randn(2, 20, seed=1)
    assert 1 < effective_rank(a).item() <= 2 + 1e-9
    assert 1 < stable_rank(a).item() <= 2
    for gram in (a.T @ a, a @ a.T):
        assert int((gram_spectrum(gram) > 0).sum()) == 2


@pytest.mark.parametrize("scale", [1e-150, 1e-20, 1.0, 1e150])
def test_a_gram_matrix_has_the_singular_values_of_its_matrix(scale):
    a = randn(3, 8, 5) * scale
    expected = torch.linalg.svdvals(a)
    assert torch.allclose(gram_spectrum(a.mT @ a), expected, rtol=1e-6, atol=0)
    assert torch.allclose(gram_spectrum(a @ a.mT)[:, :5], expected, rtol=1e-6, atol=0)


def test_what_has_no_rank_is_nan():
    for value in (0.0, math.nan, math.inf):
        a = torch.full((3, 3), value)
        for found in (effective_rank(a), stable_rank(a), *spectrum_ranks(gram_spectrum(a))):
            assert math.isnan(found.item())
    for found in (effective_rank(torch.ones(0, 3)), *spectrum_ranks(torch.ones(0))):
        assert math.isnan(found.item())


def test_float32_and_half_are_measured_in_float64():
    a = torch.diag(torch.tensor([3e-30, 4e-30]))
    assert stable_rank(a).dtype == torch.float64
    assert stable_rank(a).item() == pytest.approx(25 / 16)
    assert effective_rank(torch.eye(3).bfloat16()).item() == pytest.approx(3)
