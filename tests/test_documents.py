"""What docs/ says of the studies' documents, on tensors: formulas written anew, and the numbers."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_credit.functional import gradient_cosine, position_matching
from tests.functional.heads import randn


def test_copying_position_matching_is_that_of_the_document():
    """Its W is (out, in), of a Linear: right singular vectors are directions of the stream."""
    linear, embedding = nn.Linear(16, 16, bias=False).double(), randn(12, 16) + 0.3
    weight = linear.weight.detach()
    right = torch.linalg.svd(weight).Vh
    apart, mean = embedding - embedding.mean(0), embedding.mean(0)
    for rank in (1, 5, 16):
        found = position_matching(embedding, weight.T, [rank])
        lengths = (apart @ right[:rank].T).norm(dim=1) / apart.norm(dim=1)
        torch.testing.assert_close(found.token[0], lengths.mean(), rtol=1e-14, atol=0)
        expected = (mean @ right[:rank].T).norm() / mean.norm()
        torch.testing.assert_close(found.mean[0], expected, rtol=1e-14, atol=0)
    # Of its coefficients 2 and 3, which it does not draw: what a head reads is row @ W'.
    torch.testing.assert_close(linear(mean), mean @ weight.T)
    assert not torch.allclose(linear(mean), mean @ weight)


def test_copying_a_query_at_0_and_a_key_at_t_have_the_rotation_of_a_later_key():
    """As numbers of the plane: turned by their positions, they meet in Rot(key - query)."""
    query, key = torch.view_as_complex(randn(2, 2))
    for at_query, at_key in ((0, 7), (7, 0)):
        turned = [
            x * torch.polar(torch.ones(1), torch.tensor([0.3 * at]))
            for x, at in ((query, at_query), (key, at_key))
        ]
        angle = 0.3 * (at_key - at_query)
        rotation = torch.tensor(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        q, k = (torch.view_as_real(x).double() for x in (query, key))
        expected = q @ rotation.double() @ k
        found = (turned[0].conj() * turned[1]).real
        torch.testing.assert_close(found.squeeze().double(), expected, rtol=1e-6, atol=0)


def test_ngram_attention_maps_of_the_document_are_transposed():
    torch.manual_seed(0)
    d = 6
    attention = nn.MultiheadAttention(d, 1, bias=False, batch_first=True).double()
    w_q, w_k, _ = attention.in_proj_weight.detach().split(d)
    x = randn(1, 5, d)
    _, weights = attention(x, x, x)
    scores, document = (x @ a @ b @ x.mT / math.sqrt(d) for a, b in ((w_q.T, w_k), (w_q, w_k.T)))
    torch.testing.assert_close(scores.softmax(-1), weights)
    assert (document.softmax(-1) - weights).abs().max() > 0.01


def test_ngram_contexts_have_another_order_in_data_and_theory():
    """x_1 + N x_2 of the net against the x_1 N + x_2 of a flattened table: a large divergence."""
    n, kl = 10, []
    for seed in range(3):
        u, _, v = torch.linalg.svd(randn(n * n, n, seed=seed), full_matrices=False)
        sizes = torch.tensor([20.0] * 5 + [2.0] * 5).double()
        log_p = (u * sizes @ v).log_softmax(-1).reshape(n, n, n)
        swapped = log_p.transpose(0, 1)
        kl.append((log_p.exp() * (log_p - swapped)).sum(-1).mean().item())
    assert kl == pytest.approx([1.2] * 3, abs=0.3)


def test_residual_explosion_torch_clamps_what_gradient_cosine_does_not():
    for norm, read in ((5e-9, 0.25), (5e-10, 0.0025), (1e-3, 1.0)):
        g = torch.zeros(1, 4)
        g[0, 1] = norm
        assert F.cosine_similarity(g, g).item() == pytest.approx(read, rel=1e-3)
        assert gradient_cosine(g, g).item() == 1


def test_softmax_jacobian_no_gradient_arrives_at_the_copy_that_the_document_reads():
    scores = randn(3, 4).requires_grad_()
    copy = scores.softmax(-1).clone().requires_grad_(True)
    copy.square().sum().backward()
    assert not copy.is_leaf
    with pytest.warns(UserWarning, match="not a leaf"):
        assert copy.grad is None


def test_softmax_jacobian_one_minus_the_diagonal_is_not_the_rest():
    a, g = randn(5, 6).softmax(-1), randn(5, 6, seed=1) + 1
    full = a * (g - (a * g).sum(-1, keepdim=True))
    diagonal = a * (1 - a) * g
    rest = full - diagonal
    parts = [x.square().sum() / full.square().sum() for x in (diagonal, rest)]
    cross = 2 * (diagonal * rest).sum() / full.square().sum()
    torch.testing.assert_close(parts[0] + parts[1] + cross, torch.ones(()).double())
    assert cross < -0.1


def test_softmax_jacobian_the_mean_of_causal_attention_says_nothing():
    allowed = torch.ones(64, 64).tril().bool()
    for seed in (0, 1):
        attention = randn(64, 64, seed=seed).masked_fill(~allowed, -math.inf).softmax(-1)
        assert attention[attention > 0].mean().item() == pytest.approx(64 / 2080)
