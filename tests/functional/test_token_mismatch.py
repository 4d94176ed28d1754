from importlib import import_module

import numpy as np
import pytest
import torch

from lit_credit.functional import FactoredMatrix, token_mismatch
from tests.functional.heads import randn, random_circuits, zero


def twin(e, qk, ov):
    scores = e.numpy() @ qk.dense().numpy() @ ov.dense().numpy() @ e.numpy().T
    return np.mean([int(np.argmax(row)) != i for i, row in enumerate(scores)])


@pytest.mark.parametrize("scores_at_once", [2**24, 2000, 1])
def test_all_pairs_against_the_dense_matrix(scores_at_once, monkeypatch):
    module = import_module("lit_credit.functional.token_mismatch")
    monkeypatch.setattr(module, "_SCORES", scores_at_once)
    e = randn(20, 16, seed=5)
    readers, _ = random_circuits(3, 16, 6)
    # The reader's transpose copies, with noise so that mismatches are neither all nor none.
    noise = randn(4, 16, 6, seed=2)
    writers = FactoredMatrix(readers.right[[0, 1, 2, 0]] + noise / 3, readers.left[[0, 1, 2, 0]])
    mismatch = token_mismatch(e, readers[:, None], writers[None])
    expected = [[twin(e, readers[i], writers[j]) for j in range(4)] for i in range(3)]
    assert 0 < np.min(expected) < 0.5 < np.max(expected)
    np.testing.assert_allclose(mismatch, expected)


def test_the_token_at_the_query_is_the_row():
    # Z e_1 = 2 e_0 and Z e_0 = e_0: query 0 prefers key 1, query 1 has no score at all.
    z = FactoredMatrix(torch.eye(2), torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    assert z.dense().tolist() == [[1.0, 2.0], [0.0, 0.0]]
    one = FactoredMatrix(torch.eye(2), torch.eye(2))
    assert token_mismatch(torch.eye(2), one, z).item() == 1.0
    assert token_mismatch(torch.eye(2), one, z.T).item() == 0.5


def test_tokens_without_a_score_do_not_count():
    e = torch.eye(4).double()
    e[0] = 0.0
    one = FactoredMatrix(e.new_ones(4).diag(), e.new_ones(4).diag())
    assert token_mismatch(e, one, one).item() == 0.0


def test_undefined_is_nan():
    qk, ov = random_circuits(2, 6, 3)
    e = randn(5, 6)
    for a, b in ((zero(6), ov), (qk, zero(6))):
        assert token_mismatch(e, a, b).isnan().all()
    ov.left[0, 0, 0] = torch.nan
    assert token_mismatch(e, qk, ov).isnan().tolist() == [True, False]


def test_shapes_in_the_error():
    qk, ov = random_circuits(1, 6, 3)
    with pytest.raises(ValueError, match=r"`embedding`, `qk` and `ov`.*\(5, 4\), \(1, 6, 6\) and"):
        token_mismatch(randn(5, 4), qk, ov)
