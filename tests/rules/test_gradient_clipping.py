"""Clipping of units and of the whole net, against torch's clip_grad_norm_."""

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from lit_credit.feedback import add_feedback, learn_feedback
from lit_credit.rules.gradient_clipping import clip_gradients

LIMITS = {"0": 0.3, "2+3": 1e6, "4": 0.01}
FROZEN = "2.bias"


def net_with_gradients(dtype=torch.float32):
    torch.manual_seed(0)
    parts = [nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.LayerNorm(7), nn.Linear(7, 2)]
    net = nn.Sequential(*parts).to(dtype)
    net.get_parameter(FROZEN).requires_grad_(False)
    net(torch.randn(5, 6, dtype=dtype)).square().sum().backward()
    return net


@pytest.mark.parametrize("largest", [None, 0.05])
@pytest.mark.parametrize("limits", [{}, LIMITS])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gradients_are_those_of_torch_unit_by_unit(largest, limits, dtype):
    found, expected = net_with_gradients(dtype), net_with_gradients(dtype)
    clip_gradients(found, largest, limits)
    for name, limit in limits.items():
        parts = [expected[int(index)] for index in name.split("+")]
        clip_grad_norm_([p for part in parts for p in part.parameters()], limit)
    if largest is not None:
        clip_grad_norm_(expected.parameters(), largest)
    for (name, p), q in zip(found.named_parameters(), expected.parameters(), strict=True):
        assert (p.grad is None) == (name == FROZEN)
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize(("largest", "limits"), [(0.05, {}), (None, {"0": 0.05})])
def test_a_learned_feedback_counts_in_no_norm_and_is_scaled_like_its_weight(largest, limits):
    plain, learned = (add_feedback(net_with_gradients(torch.float64)) for _ in range(2))
    learn_feedback(learned)
    x = torch.randn(5, 6, dtype=torch.float64)
    for net in (plain, learned):
        net.zero_grad()
        net(x).square().sum().backward()
        clip_gradients(net, largest, limits)
    for part, other in zip(learned, plain, strict=True):
        if isinstance(part, nn.Linear):
            torch.testing.assert_close(part.weight.grad, other.weight.grad)
            torch.testing.assert_close(part.feedback.grad, part.weight.grad)
