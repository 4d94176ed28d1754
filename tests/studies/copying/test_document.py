"""What docs/copying_circuits.md says of the study's document, on tensors."""

import math

import torch
from torch import nn

from lit_credit.functional import position_matching
from tests.functional.heads import randn


def test_position_matching_is_that_of_the_document():
    """Its W is (out, in), of a Linear: right singular vectors are directions of the stream."""
    torch.manual_seed(0)
    linear, embedding = nn.Linear(16, 16, bias=False).double(), randn(12, 16) + 0.3
    weight = linear.weight.detach()
    right = torch.linalg.svd(weight).Vh
    apart, mean = embedding - embedding.mean(0), embedding.mean(0)
    for rank in (1, 5, 16):
        found = position_matching(embedding, weight.T, [rank])
        lengths = (apart @ right[:rank].T).norm(dim=1) / apart.norm(dim=1)
        torch.testing.assert_close(found.token[0], lengths.mean(), rtol=1e-12, atol=0)
        expected = (mean @ right[:rank].T).norm() / mean.norm()
        torch.testing.assert_close(found.mean[0], expected, rtol=1e-12, atol=0)
    # Of its coefficients 2 and 3, which it does not draw: what a head reads is row @ W'.
    torch.testing.assert_close(linear(mean), mean @ weight.T)
    assert not torch.allclose(linear(mean), mean @ weight)


def test_a_query_at_0_and_a_key_at_t_have_the_rotation_of_a_later_key():
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
