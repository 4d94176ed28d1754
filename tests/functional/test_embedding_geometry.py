import numpy as np
import pytest
import torch

from lit_credit.functional import (
    cosine_matrix,
    feature_dimensionality,
    mean_squared_cosine,
    welch_bound,
)
from tests.functional.heads import randn


def slow_cosines(w):
    w = w.double().numpy()
    return np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in w] for a in w])


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (2, 1)])
def test_against_loops_over_pairs(shape, scale):
    w = randn(*shape)
    cosines = slow_cosines(w)
    scaled = (w * scale).float()
    n = len(w)
    np.testing.assert_allclose(cosine_matrix(scaled), cosines, atol=1e-6)
    pairs = [cosines[i, j] ** 2 for i in range(n) for j in range(n) if i != j]
    assert mean_squared_cosine(scaled).item() == pytest.approx(np.mean(pairs), abs=1e-6)
    a = w.numpy()
    slow = [a[i] @ a[i] / sum((a[i] @ b) ** 2 / (a[i] @ a[i]) for b in a) for i in range(n)]
    np.testing.assert_allclose(feature_dimensionality(scaled), slow, atol=1e-6)


def test_no_vectors_are_below_the_bound_and_tight_frames_are_at_it():
    for n, d, seed in ((10, 5, 0), (40, 3, 1), (6, 5, 2), (4, 7, 3)):
        assert mean_squared_cosine(randn(n, d, seed=seed)).item() > welch_bound(n, d)
    for n in (2, 3, 5, 12):  # directions evenly around a circle
        angles = torch.arange(n, dtype=torch.float64) * 2 * torch.pi / n
        circle = torch.stack([angles.cos(), angles.sin()], 1)
        if n > 2:
            assert mean_squared_cosine(circle).item() == pytest.approx(welch_bound(n, 2))
            expected = torch.full((n,), 2 / n, dtype=torch.float64)
            torch.testing.assert_close(feature_dimensionality(circle), expected)
    assert mean_squared_cosine(torch.eye(5)).item() == pytest.approx(welch_bound(5, 5), abs=1e-12)


def test_what_has_no_direction():
    w = randn(4, 3)
    w[1] = 0
    nan = cosine_matrix(w).isnan()
    assert nan.any(0).tolist() == [True] * 4
    assert nan.all(0).tolist() == [False, True, False, False]
    assert mean_squared_cosine(w).isnan()
    assert mean_squared_cosine(w[:1]).isnan()
    with pytest.raises(ValueError, match=r"`vectors` has shape \(3,\)"):
        cosine_matrix(w[0])
    for arguments, name in (((1, 5), "count"), ((5, 0), "dimension")):
        with pytest.raises(ValueError, match=f"`{name}`"):
            welch_bound(*arguments)
