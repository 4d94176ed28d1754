import math

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from lit_credit.functional import leading_directions, principal_angles, subspace_match
from tests.functional.heads import randn, random_orthonormal

RANKS = [1, 2, 5]


def test_all_pairs_and_ranks_against_numpy():
    reading, writing = random_orthonormal(3, 12, 6), random_orthonormal(2, 12, 5, seed=1)
    match = subspace_match(reading[:, None], writing[None], RANKS)
    assert match.largest.shape == match.rms.shape == (3, 2, len(RANKS))
    for i, j, k in np.ndindex(3, 2, len(RANKS)):
        v, u = (x[:, : RANKS[k]].numpy() for x in (reading[i], writing[j]))
        s = np.linalg.svd(v.T @ u, compute_uv=False)
        assert float(match.largest[i, j, k]) == pytest.approx(s[0])
        assert float(match.rms[i, j, k]) == pytest.approx(np.sqrt(np.mean(s**2)))


def test_bounds():
    basis = random_orthonormal(64, 64)
    turned = basis[:, :20] @ random_orthonormal(20, 20, seed=1)
    same = subspace_match(basis[:, :20], turned, [20])
    assert same.largest.item() == pytest.approx(1)
    assert same.rms.item() == pytest.approx(1)
    assert max(same.largest.item(), same.rms.item()) <= 1
    apart = subspace_match(basis[:, :20], basis[:, 20:40], RANKS)
    assert apart.largest.abs().max().item() < 1e-14
    assert apart.rms.abs().max().item() < 1e-14


def test_undefined_is_nan():
    reading = random_orthonormal(2, 8, 4)
    reading[0, 0, 3] = torch.nan
    match = subspace_match(reading, reading, [2, 4])
    for number in match:
        assert number.isnan().tolist() == [[False, True], [False, False]]
    assert principal_angles(reading, reading).isnan().all(-1).tolist() == [True, False]


@pytest.mark.parametrize("ranks", [[0], [], [2, 5]])
def test_ranks_that_there_are_not(ranks):
    four, six = random_orthonormal(8, 4), random_orthonormal(8, 6)
    with pytest.raises(ValueError, match=r"`ranks` is .* from 1 to 4, as many as `reading`"):
        subspace_match(four, six, ranks)
    if ranks == [2, 5]:
        with pytest.raises(ValueError, match="as many as `writing`"):
            subspace_match(six, four, ranks)


@pytest.mark.parametrize(("n", "m"), [(4, 4), (3, 5), (5, 3), (7, 7)])
def test_angles_against_scipy(n, m):
    a, b = random_orthonormal(2, 10, n), random_orthonormal(2, 10, m, seed=1)
    angles = principal_angles(a, b)
    for i in range(2):
        expected = subspace_angles(a[i].numpy(), b[i].numpy())[::-1]
        np.testing.assert_allclose(angles[i], expected, atol=1e-14)


def test_small_and_right_angles_keep_their_digits():
    # The plane of e0, e1 turned toward e2, e3 by two angles; the arc cosine would read 0 and 0.
    known = [1e-11, 1e-6]
    b = torch.zeros(6, 3, dtype=torch.float64)
    for i, angle in enumerate(known):
        b[i, i], b[i + 2, i] = math.cos(angle), math.sin(angle)
    b[5, 2] = 1.0
    a = torch.eye(6, 3, dtype=torch.float64)
    a[2, 2], a[4, 2] = 0.0, 1.0
    rotation = random_orthonormal(6, 6)
    angles = principal_angles(rotation @ a, rotation @ b @ random_orthonormal(3, 3, seed=2))
    assert angles.tolist() == pytest.approx([*known, math.pi / 2], rel=1e-4)


@pytest.mark.parametrize("shape", [(2, 9, 4), (2, 4, 9), (5, 5)])
def test_leading_directions_against_numpy(shape):
    matrix = randn(*shape)
    u = np.linalg.svd(matrix.numpy(), full_matrices=False)[0][..., :3]
    found = leading_directions(matrix, 3)
    # A direction has no sign.
    np.testing.assert_allclose(found @ found.mT, u @ u.swapaxes(-1, -2), atol=1e-12)
    first = np.abs((found[..., 0].numpy() * u[..., 0]).sum(-1))
    np.testing.assert_allclose(first, np.ones(shape[:-2]))


def test_leading_directions_of_nothing():
    matrix = randn(3, 5, 4)
    matrix[0] = 0.0
    matrix[1, 0, 0] = torch.inf
    for m in (matrix, matrix.mT):
        found = leading_directions(m, 2).isnan().flatten(1)
        assert found.all(1).tolist() == [True, True, False]
        assert found.any(1).tolist() == [True, True, False]
    with pytest.raises(ValueError, match="`rank` is 5, expected a number from 1 to 4"):
        leading_directions(matrix, 5)


def test_a_rank_of_each_pair_is_the_last():
    reading, writing = random_orthonormal(3, 12, 6), random_orthonormal(2, 12, 6, seed=1)
    own = torch.tensor([[1, 6], [2, 2], [4, 5]])
    found = subspace_match(reading[:, None], writing[None], RANKS, own)
    every = subspace_match(reading[:, None], writing[None], [*RANKS, 1, 2, 3, 4, 5, 6])
    for numbers, all_ranks in zip(found, every, strict=True):
        torch.testing.assert_close(numbers[..., :3], all_ranks[..., :3])
        expected = all_ranks.gather(-1, own[..., None] + 2)
        torch.testing.assert_close(numbers[..., 3:], expected)
    with pytest.raises(ValueError, match="as many as `reading`"):
        subspace_match(reading[:, None], writing[None], RANKS, own + 1)
