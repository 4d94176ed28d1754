"""The functions of the study against numpy, scipy's minimiser, and descent."""
# ruff: noqa: F722 (jaxtyping shapes are strings that are not expressions)

import math

import numpy as np
import pytest
import torch
from beartype import beartype
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float, Float64, jaxtyped
from scipy.optimize import minimize
from torch import Tensor, nan
from torch.nn.functional import cross_entropy

from lit_credit.functional import centred_log_probs, softmax_divergence
from lit_credit.studies.ngram import (
    LastPosition,
    NGram,
    PowerUnif,
    conditional_entropy,
    log_ratio_fluctuation,
    low_rank_log_probs,
    max_accuracy,
    min_norm_coordinates,
    optimal_contexts,
    random_baseline,
    second_order_contexts,
)
from tests.functional.heads import randn, random_orthonormal

M, N, D = 13, 7, 3

typed = jaxtyped(typechecker=beartype)

seeds = st.integers(0, 2**16)
widths = st.integers(2, 5)


def rows(spread=1.0, seed=0):
    return (spread * randn(M, N, seed=seed)).softmax(-1)


def distributions(*shape, seed):
    return (3 * randn(*shape, seed=seed)).softmax(-1)


def close(found, expected, tolerance=1e-9):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


# What can be known of the next symbol.


def known(distribution):
    """The prior and the rows of its contexts."""
    return NGram(distribution, seed=0).contexts()[1:]


def test_numbers_of_the_study():
    prior, rows = known(LastPosition(vocab_size=10, peak=0.95))
    assert conditional_entropy(prior, rows).item() == pytest.approx(0.3084, abs=5e-5)
    assert random_baseline(prior, rows).item() == pytest.approx(1.9942, abs=5e-5)
    assert max_accuracy(prior, rows).item() == pytest.approx(0.95)
    diffuse = PowerUnif([1.0, 1.0, 0.9], [40, 40, 100], vocab_size=100)
    prior, rows = known(diffuse)
    assert len(prior) == 1600
    assert conditional_entropy(prior, rows).item() == pytest.approx(3.2505, abs=5e-5)
    assert random_baseline(prior, rows).item() == pytest.approx(1.3546, abs=5e-5)
    slow = -sum(
        p * sum(q * math.log(q) for q in r)
        for p, r in zip(prior.tolist(), rows.tolist(), strict=True)
    )
    assert conditional_entropy(prior, rows).item() == pytest.approx(slow)
    # Impossible symbols add nothing.
    lookup = PowerUnif([1.0, 1.0], [10, 1], vocab_size=10)
    prior, rows = known(lookup)
    assert conditional_entropy(prior, rows).item() == 0


@given(seed=seeds, t=widths, v=widths)
def test_what_is_known_and_what_is_not_make_the_whole(seed, t, v):
    prior, rows = distributions(t, seed=seed), distributions(t, v, seed=seed + 1)
    known = random_baseline(prior, rows)
    whole = known + conditional_entropy(prior, rows)
    close(whole, torch.tensor(v).double().log())
    assert -known <= 1e-9
    assert max_accuracy(prior, rows) >= 1 / v - 1e-9


def test_a_prior_of_other_contexts_is_refused():
    with pytest.raises(ValueError, match=r"`prior` has shape \(3,\) and `rows` \(4, 2\)"):
        conditional_entropy(torch.ones(3), torch.ones(4, 2))


# The logits of low rank, to second order.


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
    assert low_rank_log_probs(p, 2).isnan().all()


def test_the_truncation_against_numpy():
    p = rows()
    logs = np.log(p.numpy())
    a, s, b = np.linalg.svd(logs - logs.mean(1, keepdims=True), full_matrices=False)
    np.testing.assert_allclose(low_rank_log_probs(p, D), (a[:, :D] * s[:D]) @ b[:D], atol=1e-12)


@given(seed=seeds, m=widths, n=widths)
def test_full_rank_leaves_nothing_out(seed, m, n):
    p = distributions(m, n, seed=seed)
    close(low_rank_log_probs(p, min(m, n)), centred_log_probs(p), 1e-7)


def test_ranks_and_symbols_that_do_not_fit_are_named():
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


# The best logits of low rank.


def drawn(spread, symbols=8, contexts=30, width=3):
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(symbols, width, generator=generator, dtype=torch.float64)
    logits = spread * torch.randn(contexts, symbols, generator=generator, dtype=torch.float64)
    return u, logits.softmax(-1)


@pytest.mark.parametrize("bias", [None, torch.linspace(-1, 1, 8, dtype=torch.float64)])
@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0, 8.0])
def test_no_other_vector_comes_closer(spread, bias):
    u, p = drawn(spread)
    b = torch.zeros(8, dtype=torch.float64) if bias is None else bias
    found = softmax_divergence(optimal_contexts(u, p, bias) @ u.mT + b, p)

    def loss(w, row):
        w = torch.tensor(w, requires_grad=True)
        value = cross_entropy(u @ w + b, row)
        return value.item(), torch.autograd.grad(value, w)[0].numpy()

    for row, divergence in zip(p, found, strict=True):
        least = minimize(loss, torch.zeros(3).double().numpy(), (row,), jac=True, tol=1e-10)
        entropy = torch.special.entr(row).sum().item()
        assert divergence.item() == pytest.approx(least.fun - entropy, abs=1e-7)


def test_close_to_the_data_second_order_is_enough_and_far_from_them_it_is_not():
    for spread, enough in ((0.05, True), (3.0, False)):
        u, p = drawn(spread)
        best, second = (
            softmax_divergence(f(u, p) @ u.mT, p).mean()
            for f in (optimal_contexts, second_order_contexts)
        )
        assert best <= second
        assert (second < 1.001 * best) == enough


def test_a_degenerate_unembedding_and_symbols_that_never_come():
    u, p = drawn(1.0)
    u[:, 2] = 1.0  # which the softmax does not see
    found = optimal_contexts(u, p)
    assert found.isfinite().all()
    torch.testing.assert_close(
        (found @ u.mT).softmax(-1), (optimal_contexts(u[:, :2], p) @ u[:, :2].mT).softmax(-1)
    )
    p[4] = torch.eye(8, dtype=torch.float64)[1]
    found = optimal_contexts(u, p)
    assert found[4].isnan().all()
    assert found[:4].isfinite().all()


def test_sizes_that_differ_are_named():
    with pytest.raises(ValueError, match=r"\(8, 3\) and \(2, 7\)"):
        optimal_contexts(drawn(1.0)[0], torch.ones(2, 7) / 7)


@given(seed=seeds, n=widths, m=widths)
def test_what_is_best_is_no_worse(seed, n, m):
    unembedding, p = randn(n, 2, seed=seed), distributions(m, n, seed=seed + 1)
    best, second = (
        softmax_divergence(contexts(unembedding, p) @ unembedding.mT, p)
        for contexts in (optimal_contexts, second_order_contexts)
    )
    assert (best <= second + 1e-9).all()
    assert (best <= softmax_divergence(torch.zeros_like(p), p) + 1e-9).all()


def test_nan_in_a_distribution_stays_in_its_row():
    p = torch.tensor([[0.7, 0.2, 0.1], [nan, 0.5, 0.5], [1.0, 0.0, 0.0]])
    w = torch.eye(3)[:, :2]
    for contexts in (second_order_contexts, optimal_contexts):
        found = contexts(w, p)
        assert found[1].isnan().all()
        torch.testing.assert_close(found[:1], contexts(w, p[:1]))
    assert log_ratio_fluctuation(torch.zeros(2, 3), p[:2])[1].isnan().all()


@typed
def theory_logits(
    u: Float[Tensor, "n d"], p: Float[Tensor, "m n"]
) -> tuple[Float64[Tensor, "m n"], ...]:
    contexts: Float64[Tensor, "m d"] = second_order_contexts(u, p)
    logits = contexts @ u.double().mT
    low_rank = low_rank_log_probs(p, 2)
    return low_rank, centred_log_probs(p), log_ratio_fluctuation(logits, p)


@typed
def coordinates(parts: Float[Tensor, "*h m d"], u: Float[Tensor, "n d"]) -> Float[Tensor, "*h m n"]:
    return min_norm_coordinates(parts, u)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_dtypes(dtype):
    u, parts = torch.randn(7, 3, dtype=dtype), torch.randn(4, 5, 3, dtype=dtype)
    theory_logits(u, torch.randn(5, 7, dtype=dtype).softmax(-1))
    for some in (parts, parts[0]):
        assert coordinates(some, u).dtype == dtype


# A vector in the coordinates of the unembedding.


def test_coordinates_give_the_vector_back_and_are_the_shortest():
    w, h = randn(N, D), randn(5, D, seed=1)
    alpha = min_norm_coordinates(h, w)
    torch.testing.assert_close(alpha @ w, h)
    torch.testing.assert_close(alpha @ (w @ w.mT), h @ w.mT)
    torch.testing.assert_close(alpha, (w @ torch.linalg.inv(w.mT @ w) @ h.mT).mT)
    assert torch.equal(min_norm_coordinates(h[0], w).isnan(), torch.zeros(N, dtype=torch.bool))


@given(seed=seeds, n=widths, d=widths)
def test_coordinates_make_up_the_vector(seed, n, d):
    h, unembedding = randn(2, d, seed=seed), randn(n + d, d, seed=seed + 1)
    coordinates = min_norm_coordinates(h, unembedding)
    close(coordinates @ unembedding, h, 1e-7)


@given(seed=seeds, d=st.integers(3, 6))
def test_coordinates_do_not_depend_on_the_basis(seed, d):
    h, unembedding = randn(2, 3, d, seed=seed)
    turn = random_orthonormal(d, d, seed=seed + 1)
    turned = min_norm_coordinates(h @ turn, unembedding @ turn)
    close(turned, min_norm_coordinates(h, unembedding), 1e-7)


def test_coordinates_of_vectors_that_do_not_fit_or_are_not_finite():
    with pytest.raises(ValueError, match=r"expected \(..., d\) and \(N, d\)"):
        min_norm_coordinates(randn(M, D + 1), randn(N, D))
    assert min_norm_coordinates(torch.ones(2), torch.tensor([[nan, 1.0]])).isnan().all()
