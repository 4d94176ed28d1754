"""What docs/ngram_memorization.md says of the study's document, on tensors."""

import math

import pytest
import torch
from torch import nn

from tests.functional.heads import randn


def test_attention_maps_of_the_document_are_transposed():
    torch.manual_seed(0)
    d = 6
    attention = nn.MultiheadAttention(d, 1, bias=False, batch_first=True).double()
    w_q, w_k, _ = attention.in_proj_weight.detach().split(d)
    x = randn(1, 5, d)
    _, weights = attention(x, x, x)
    scores, document = (x @ a @ b @ x.mT / math.sqrt(d) for a, b in ((w_q.T, w_k), (w_q, w_k.T)))
    torch.testing.assert_close(scores.softmax(-1), weights)
    assert (document.softmax(-1) - weights).abs().max() > 0.01


def test_contexts_have_another_order_in_data_and_theory():
    """x_1 + N x_2 of the net against the x_1 N + x_2 of a flattened table: a large divergence."""
    n, kl = 10, []
    for seed in range(3):
        u, _, v = torch.linalg.svd(randn(n * n, n, seed=seed), full_matrices=False)
        sizes = torch.tensor([20.0] * 5 + [2.0] * 5).double()
        log_p = (u * sizes @ v).log_softmax(-1).reshape(n, n, n)
        swapped = log_p.transpose(0, 1)
        kl.append((log_p.exp() * (log_p - swapped)).sum(-1).mean().item())
    assert kl == pytest.approx([1.2] * 3, abs=0.3)
