import numpy as np
import pytest
import torch

from lit_credit.functional import FactoredMatrix, composition_null, composition_scores
from tests.functional.heads import randn, random_circuits, random_orthonormal, zero


def test_all_pairs_against_dense_matrices():
    qk, ov = random_circuits(3, 10, 4)
    _, writers = random_circuits(2, 10, 4, seed=1)
    found = composition_scores(qk[:, None], ov[:, None], writers[None])
    norm = np.linalg.norm
    for i, j in np.ndindex(3, 2):
        w = writers.dense()[j].numpy()
        q, o = qk.dense()[i].numpy(), ov.dense()[i].numpy()
        for score, a in zip(found, (q.T, q, o), strict=True):
            assert float(score[i, j]) == pytest.approx(norm(a @ w) / norm(a) / norm(w))


@pytest.mark.parametrize(("rank", "other"), [(16, 16), (2, 12), (1, 1)])
def test_the_null_holds_for_any_rank_and_spectrum(rank, other):
    d, draws = 16, 4000
    spectrum = torch.arange(1.0, rank + 1).double() ** 2
    a = FactoredMatrix(randn(d, rank), randn(d, rank, seed=1) * spectrum)
    b = FactoredMatrix(random_orthonormal(draws, d, other), randn(d, other, seed=2))
    squares = composition_scores(a.T, a, b).key.square()
    error = squares.std().item() / draws**0.5
    assert squares.mean().item() == pytest.approx(composition_null(d) ** 2, abs=4 * error)
    assert error < 0.03 / d


def test_the_spread_of_the_null_for_flat_spectra():
    d, rank, other = 128, 4, 6
    a = FactoredMatrix(random_orthonormal(d, rank), random_orthonormal(d, rank, seed=1))
    b = FactoredMatrix(random_orthonormal(1000, d, other, seed=2), random_orthonormal(d, other))
    scores = composition_scores(a, a, b).key
    share = (scores.std() / scores.mean()).item()
    assert share == pytest.approx((2 * rank * other) ** -0.5, rel=0.1)


def test_bounds():
    basis = random_orthonormal(8, 8)
    reads = FactoredMatrix(randn(8, 2), basis[:, :2])
    writes = FactoredMatrix(basis[:, :2], basis[:, 2:4])
    one = FactoredMatrix(basis[:, :1], basis[:, 1:2])
    assert composition_scores(reads, reads, one.T).key.item() <= 1
    assert composition_scores(one, one, one.T).key.item() == pytest.approx(1)
    elsewhere = FactoredMatrix(basis[:, 4:6], basis[:, 2:4])
    assert composition_scores(reads, reads, elsewhere).key.item() == pytest.approx(0, abs=1e-14)
    assert composition_scores(reads, reads, writes).key.item() > 0.3


def test_undefined_is_nan():
    qk, ov = random_circuits(2, 6, 3)
    assert all(x.isnan().all() for x in composition_scores(qk, ov, zero(6)))
    assert composition_scores(zero(6), ov, ov).key.isnan().all()
    ov.left[0, 0, 0] = torch.inf
    assert composition_scores(qk, qk, ov).value.isnan().tolist() == [True, False]
