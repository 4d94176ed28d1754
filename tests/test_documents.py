"""What docs/ says of the studies' documents, on tensors: formulas written anew, and the numbers."""

import math

import pytest
import torch
from torch.nn import functional as F

from lit_credit.functional import gradient_cosine
from tests.functional.heads import randn


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
