"""The true gradient of nets with a feedback backward."""

import pytest
import torch
from torch import nn

from lit_credit.feedback import add_feedback
from lit_credit.inspect.exact_backward import exact_backward
from tests.support import Interrupted


@pytest.mark.parametrize("fails", [False, True])
def test_exact_backward_is_the_true_one_for_a_while(fails):
    torch.manual_seed(0)
    plain, net = (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1)) for _ in range(2))
    net.load_state_dict(plain.state_dict())
    add_feedback(net)
    net[1].feedback_backward = False
    x = torch.randn(2, 3, requires_grad=True)

    def gradient(module):
        return torch.autograd.grad(module(x).sum(), x)[0]

    own = gradient(net)
    try:
        with exact_backward(net):
            torch.testing.assert_close(gradient(net), gradient(plain))
            if fails:
                raise Interrupted
    except Interrupted:
        pass
    assert (net[0].feedback_backward, net[1].feedback_backward) == (True, False)
    assert torch.equal(gradient(net), own)
    assert not torch.allclose(own, gradient(plain))
    with exact_backward(plain):
        gradient(plain)
