"""Linear CKA against centring matrices and plain sums, its invariances, and its bias."""

import itertools

import numpy as np
import pytest
import torch

from lit_credit.functional import linear_cka
from lit_credit.functional.representations import centred_gram, cka_matrix
from tests.functional.heads import randn, random_orthonormal


def hsic_by_centring(a, b):
    """The biased HSIC: tr(A H B H) / (n - 1)^2."""
    n = len(a)
    h = np.eye(n) - np.ones((n, n)) / n
    return np.trace(a @ h @ b @ h) / (n - 1) ** 2


def hsic_by_sums(a, b):
    """HSIC_1 as a U-statistic: means over distinct samples."""

    def over(count, term):
        return np.mean([term(*some) for some in itertools.permutations(range(len(a)), count)])

    pairs = over(2, lambda i, j: a[i, j] * b[i, j])
    threes = over(3, lambda i, j, q: a[i, j] * b[i, q])
    fours = over(4, lambda i, j, q, r: a[i, j] * b[q, r])
    return pairs + fours - 2 * threes


@pytest.mark.parametrize(("debiased", "hsic"), [(False, hsic_by_centring), (True, hsic_by_sums)])
def test_against_the_slow_formula(debiased, hsic):
    x, y = randn(8, 3, seed=0) + 5, randn(8, 4, seed=1)
    y[:, 0] = x[:, 0] ** 2
    a, b = (part.numpy() @ part.numpy().T for part in (x, y))
    expected = hsic(a, b) / np.sqrt(hsic(a, a) * hsic(b, b))
    assert linear_cka(x, y, debiased).item() == pytest.approx(expected, abs=1e-10)


def test_biased_cka_is_that_of_features():
    x, y = (part - part.mean(0) for part in (randn(9, 3, seed=2), randn(9, 5, seed=3)))
    cross, own, other = (a.mT @ b for a, b in ((y, x), (x, x), (y, y)))
    expected = cross.norm() ** 2 / (own.norm() * other.norm())
    assert linear_cka(x, y, debiased=False).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("debiased", [True, False])
def test_rotation_scale_and_offset_do_not_count(debiased):
    x, y = randn(12, 6, seed=4), randn(12, 5, seed=5)
    turned = 1e-20 * x @ random_orthonormal(6, 6, seed=6) + 1e-18
    assert linear_cka(x, turned, debiased).item() == pytest.approx(1, abs=1e-6)
    turned = 1e20 * x @ random_orthonormal(6, 6, seed=6)
    expected = linear_cka(x, y, debiased).item()
    assert linear_cka(turned, y + 3, debiased).item() == pytest.approx(expected, abs=1e-9)
    stretched = x * torch.logspace(0, 2, 6, dtype=torch.float64)
    assert linear_cka(x, stretched, debiased).item() < 0.9


def test_independent_features_are_at_zero_and_the_biased_value_is_not():
    found = [
        [linear_cka(randn(40, 400, seed=2 * s), randn(40, 400, seed=2 * s + 1), debiased).item()]
        for s in range(8)
        for debiased in (True, False)
    ]
    assert abs(np.mean(found[::2])) < 0.02
    assert np.mean(found[1::2]) > 0.9


def test_matrices_of_many_layers_and_blocks(monkeypatch):
    layers = [randn(7, d, seed=d) for d in (2, 3, 5)]
    grams = torch.stack([centred_gram(x).flatten() for x in layers])
    monkeypatch.setattr("lit_credit.functional.representations._BLOCK", 10)
    found = cka_matrix(grams, grams[1:])
    for i, j in itertools.product(range(3), range(2)):
        expected = linear_cka(layers[i], layers[j + 1]).item()
        assert found[i, j].item() == pytest.approx(expected, abs=1e-12)
    upper = torch.triu_indices(7, 7, 1)
    part = torch.stack([centred_gram(x)[upper[0], upper[1]] for x in layers])
    torch.testing.assert_close(cka_matrix(part, part), cka_matrix(grams, grams))


def test_what_does_not_vary_is_nan():
    x = randn(6, 3)
    for other in (torch.full((6, 2), 0.1), torch.full((6, 2), torch.inf), x[:, :0]):
        assert linear_cka(x, other).isnan()
    for n, debiased in ((3, True), (1, False)):
        assert linear_cka(x[:n], x[:n], debiased).isnan()
        assert not linear_cka(x[: n + 1], x[: n + 1], debiased).isnan()
