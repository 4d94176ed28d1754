import math

import numpy as np
import pytest
import torch

from lit_credit.functional import FactoredMatrix, diagonal_score, diagonal_score_null_sd
from tests.functional.heads import randn, random_circuits, random_orthonormal, zero


def twin(qk, ov):
    z = qk.dense().numpy() @ ov.dense().numpy()
    entries = [float(z[i, j]) for i in range(len(z)) for j in range(len(z))]
    return (np.mean([z[i, i] for i in range(len(z))]) - np.mean(entries)) / np.std(entries)


@pytest.mark.parametrize(("d", "d_head"), [(12, 3), (12, 12), (5, 8), (2, 1)])
def test_all_pairs_against_the_dense_matrix(d, d_head):
    readers, _ = random_circuits(3, d, d_head)
    _, writers = random_circuits(4, d, d_head, seed=1)
    # An offset, as the mean of Z is otherwise too small to matter.
    writers = FactoredMatrix(writers.left + 1, writers.right + 1)
    z = diagonal_score(readers[:, None], writers[None])
    assert z.shape == (3, 4)
    for i, j in np.ndindex(3, 4):
        assert float(z[i, j]) == pytest.approx(twin(readers[i], writers[j]), rel=1e-9)


@pytest.mark.parametrize("d", [2, 9, 64])
def test_the_bound_is_met_by_the_identity(d):
    q = random_orthonormal(d, d)
    there, back = FactoredMatrix(q, torch.eye(d).double()), FactoredMatrix(torch.eye(d).double(), q)
    assert diagonal_score(there, back).item() == pytest.approx(math.sqrt(d - 1))


def test_the_sign():
    qk, _ = random_circuits(1, 12, 12)
    inverse = FactoredMatrix(torch.linalg.inv(qk.dense()), torch.eye(12).double())
    assert diagonal_score(qk, inverse).item() == pytest.approx(math.sqrt(11))
    negative = FactoredMatrix(-inverse.left, inverse.right)
    assert diagonal_score(qk, negative).item() == pytest.approx(-math.sqrt(11))


@pytest.mark.parametrize(("d", "d_head"), [(32, 32), (64, 8)])
def test_the_null_by_simulation(d, d_head):
    readers, _ = random_circuits(60, d, d_head)
    _, writers = random_circuits(60, d, d_head, seed=1)
    z = diagonal_score(readers[:, None], writers[None])
    assert z.mean().abs().item() < 0.01
    assert z.std().item() == pytest.approx(diagonal_score_null_sd(d), rel=0.05)


def test_undefined_is_nan():
    qk, ov = random_circuits(1, 6, 3)
    constant = FactoredMatrix(torch.ones(6, 1).double(), torch.ones(6, 1).double())
    broken = FactoredMatrix(torch.full((6, 1), torch.inf), torch.ones(6, 1))
    # What is read and what is written share no direction but for rounding.
    basis = random_orthonormal(6, 6)
    reads = FactoredMatrix(randn(6, 2), basis[:, :2])
    writes = FactoredMatrix(basis[:, 2:], randn(6, 4))
    for a, b in (
        (zero(6), ov),
        (qk, zero(6)),
        (constant, constant),
        (broken, broken),
        (reads, writes),
    ):
        assert diagonal_score(a, b).isnan().all()


def test_shapes_in_the_error():
    qk, _ = random_circuits(1, 6, 3)
    with pytest.raises(ValueError, match=r"`qk` and `ov`.*\(1, 6, 6\) and \(5, 5\)"):
        diagonal_score(qk, zero(5))
