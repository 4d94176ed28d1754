import numpy as np
import pytest
import torch

from lit_credit.functional import position_matching
from tests.functional.heads import randn, random_orthonormal

RANKS = [1, 3]


@pytest.mark.parametrize("d_head", [4, 8, 11])
def test_heads_against_a_loop(d_head):
    embedding, weights = randn(10, 8) + 0.3, randn(2, 8, d_head, seed=1)
    found = position_matching(embedding, weights, RANKS)
    assert {number.shape for number in found} == {(2, 2)}
    e = embedding.numpy()
    for h, k in np.ndindex(2, 2):
        u = np.linalg.svd(weights[h].numpy())[0][:, : RANKS[k]]
        mean = e.mean(0)
        lengths = [np.linalg.norm((row - mean) @ u) / np.linalg.norm(row - mean) for row in e]
        assert float(found.token[h, k]) == pytest.approx(np.mean(lengths))
        assert float(found.token_sd[h, k]) == pytest.approx(np.std(lengths))
        expected = np.linalg.norm(mean @ u) / np.linalg.norm(mean)
        assert float(found.mean[h, k]) == pytest.approx(expected)


def test_a_head_that_reads_only_what_tokens_share():
    basis = random_orthonormal(8, 8)
    tokens = randn(10, 4, seed=1)
    embedding = (tokens - tokens.mean(0)) @ basis[:, :4].T + basis[:, 4]
    shared, apart = basis[:, 4:] @ randn(4, 4), basis[:, :4] @ randn(4, 4)
    found = position_matching(embedding, torch.stack([shared, apart]), [4])
    torch.testing.assert_close(found.token, torch.tensor([[0.0], [1.0]]).double())
    torch.testing.assert_close(found.mean, torch.tensor([[1.0], [0.0]]).double())


def test_undefined_is_nan():
    embedding, weights = randn(5, 6), randn(3, 6, 4)
    weights[0] = 0.0
    weights[1, 0, 0] = torch.nan
    for number in position_matching(embedding, weights, [1, 2]):
        assert number.isnan().tolist() == [[True, True], [True, True], [False, False]]
    assert position_matching(embedding[:1], weights[2], [1]).token.isnan().all()
    assert position_matching(embedding.new_zeros(5, 6), weights[2], [1]).mean.isnan().all()


def test_errors():
    with pytest.raises(ValueError, match=r"`embedding` and `weight`.*\(5, 4\) and \(6, 3\)"):
        position_matching(randn(5, 4), randn(6, 3), [1])
    with pytest.raises(ValueError, match=r"`ranks` is \[1, 4\].* 3, as many as `weight`"):
        position_matching(randn(5, 6), randn(6, 3), [1, 4])
