"""The best context vectors against scipy's minimiser."""

import pytest
import torch
from scipy.optimize import minimize
from torch.nn.functional import cross_entropy

from lit_credit.functional import second_order_contexts, softmax_divergence
from lit_credit.studies.ngram import optimal_contexts


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
