"""The theory of low-rank logits against numpy, its identity, and its optimality by descent."""

import numpy as np
import pytest
import torch

from lit_credit.functional import (
    centred_log_probs,
    log_prob_directions,
    log_ratio_fluctuation,
    low_rank_log_probs,
    second_order_contexts,
    softmax_divergence,
)
from tests.functional.heads import randn

M, N, D = 13, 7, 3


def rows(spread=1.0, seed=0):
    return (spread * randn(M, N, seed=seed)).softmax(-1)


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
def test_the_divergence_is_the_log_of_a_mean_exponential(spread):
    logits, p = randn(M, N, seed=1), rows(spread)
    z = log_ratio_fluctuation(logits, p)
    torch.testing.assert_close((p * z).sum(-1), torch.zeros(M, dtype=torch.float64))
    torch.testing.assert_close((p * z.exp()).sum(-1).log(), softmax_divergence(logits, p))


def test_to_second_order_the_divergence_is_half_a_variance():
    p = rows()
    for size in (1e-2, 1e-3):
        logits = p.log() + size * randn(M, N, seed=2)
        z = log_ratio_fluctuation(logits, p)
        half = (p * z.square()).sum(-1) / 2
        error = (half / softmax_divergence(logits, p) - 1).abs().max()
        assert error < 3 * size


def test_contexts_are_covariance_over_variance_and_a_minimum():
    u, p = randn(N, D, seed=3), rows(2.0)
    w = second_order_contexts(u, p)
    for m in range(M):
        probs, logs = p[m].numpy(), p[m].log().numpy()
        mean = probs @ u.numpy()
        centred = u.numpy() - mean
        variance = (probs[:, None] * centred).T @ centred
        covariance = (probs * (logs - probs @ logs)) @ centred
        np.testing.assert_allclose(w[m], np.linalg.solve(variance, covariance), rtol=1e-9)

    def half_variance(w):
        return (p * log_ratio_fluctuation(w @ u.mT, p).square()).sum(-1) / 2

    best = half_variance(w)
    for seed in range(5):
        assert (half_variance(w + 1e-3 * randn(M, D, seed=seed)) > best).all()


def test_contexts_of_log_linear_rows_are_exact():
    u, true = randn(N, D, seed=4), randn(M, D, seed=5)
    p = (true @ u.mT).softmax(-1)
    torch.testing.assert_close(second_order_contexts(u, p), true)
    assert softmax_divergence(low_rank_log_probs(p, D), p).abs().max() < 1e-12


def test_contexts_of_a_degenerate_unembedding_are_the_shortest():
    u = randn(N, 1, seed=6).expand(N, 2)
    w = second_order_contexts(u, rows())
    torch.testing.assert_close(w[:, 0], w[:, 1])


def test_contexts_of_an_unembedding_with_a_bias():
    u, true, b = randn(N, D, seed=4), randn(M, D, seed=5), randn(N, seed=6)
    p = (true @ u.mT + b).softmax(-1)
    torch.testing.assert_close(second_order_contexts(u, p, b), true)
    with pytest.raises(ValueError, match=r"`bias` has shape \(6,\), expected \(7,\)"):
        second_order_contexts(u, p, b[1:])


def test_symbols_that_never_come_play_no_part():
    p = rows()
    p[:, -1] = 0
    p = p / p.sum(-1, keepdim=True)
    u = randn(N, D)
    fewer = second_order_contexts(u[:-1], p[:, :-1])
    torch.testing.assert_close(second_order_contexts(u, p), fewer)
    assert log_ratio_fluctuation(torch.zeros_like(p), p).isnan().any(0).tolist() == [False] * 6 + [
        True
    ]
    assert log_prob_directions(p, 2).isnan().all()
    assert low_rank_log_probs(p, 2).isnan().all()


def test_directions_and_truncation_against_numpy():
    p = rows()
    logs = np.log(p.numpy())
    logs -= logs.mean(1, keepdims=True)
    np.testing.assert_allclose(centred_log_probs(p), logs, atol=1e-14)
    a, s, b = np.linalg.svd(logs, full_matrices=False)
    np.testing.assert_allclose(low_rank_log_probs(p, D), (a[:, :D] * s[:D]) @ b[:D], atol=1e-12)
    directions = log_prob_directions(p, D).numpy()
    np.testing.assert_allclose(directions @ directions.T, b[:D].T @ b[:D], atol=1e-10)
    np.testing.assert_allclose(directions.sum(0), 0, atol=1e-12)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="`rank` is 8, expected from 1 to 7"):
        low_rank_log_probs(rows(), 8)
    with pytest.raises(ValueError, match=r"`unembedding` and `probs` have shapes \(6, 3\)"):
        second_order_contexts(randn(6, D), rows())


def test_a_trained_factorization_agrees_with_the_theory():
    """E9: of log-probabilities of nearly rank d, the trained context vectors are those of theory,
    and the theory's divergence is that of training, below that of the truncated SVD.
    """
    n, d = 10, 5
    u, _, vh = torch.linalg.svd(randn(n * n, n, seed=7), full_matrices=False)
    values = torch.tensor([20.0] * d + [2.0] * (n - d), dtype=torch.float64)
    p = ((u * values) @ vh).softmax(-1)
    unembedding = randn(n, d, seed=8).requires_grad_()
    contexts = randn(n * n, d, seed=9).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [unembedding, contexts], max_iter=400, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = -(p * (contexts @ unembedding.mT).log_softmax(-1)).sum(-1).mean()
        loss.backward()
        return loss

    optimizer.step(closure)

    def mean_divergence(logits):
        return softmax_divergence(logits, p).mean().item()

    trained = mean_divergence(contexts @ unembedding.mT)
    theory = second_order_contexts(unembedding, p)
    cosines = torch.cosine_similarity(theory, contexts.detach(), dim=-1)
    uniform, second = mean_divergence(torch.zeros_like(p)), mean_divergence(theory @ unembedding.mT)
    truncated = mean_divergence(low_rank_log_probs(p, d))
    assert 0.3 < uniform < 1.0
    assert trained < second < 1.05 * trained < truncated < 0.1 * uniform
    assert cosines.mean() > 0.99
