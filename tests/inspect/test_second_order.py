"""Products with second derivatives against dense matrices."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_credit.inspect.second_order import (
    add_parts,
    gauss_newton_product,
    hessian_product,
    length_of,
    parts_of,
    share_beside,
    twice_differentiable,
)

DOUBLE = torch.float64


def data(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def logits(net, x, values):
    return torch.func.functional_call(net, dict(zip(dict(net.named_parameters()), values)), x)  # noqa: B905


def dense(blocks, parameters):
    rows = [
        torch.cat([block.reshape(p.numel(), -1) for block in row], 1)
        for row, p in zip(blocks, parameters, strict=True)
    ]
    return torch.cat(rows)


def flat(parts):
    return torch.cat([part.flatten() for part in parts])


def setting():
    net, x, y = small_net(), data(5, 3), torch.tensor([0, 1, 1, 0, 1])
    parameters = list(net.parameters())
    vector = data(length_of(parameters))
    return net, x, y, parameters, vector, parts_of(vector, parameters)


def test_hessian_product_is_that_of_the_dense_hessian():
    net, x, y, parameters, vector, parts = setting()

    def loss(*values):
        return F.cross_entropy(logits(net, x, values), y)

    matrix = dense(torch.autograd.functional.hessian(loss, tuple(parameters)), parameters)
    found = hessian_product(F.cross_entropy(net(x), y), parameters, parts)
    torch.testing.assert_close(flat(found), matrix @ vector)
    assert not any(part.requires_grad for part in found)


def test_gauss_newton_product_is_that_of_the_dense_matrix():
    net, x, y, parameters, vector, parts = setting()

    def outputs(*values):
        return logits(net, x, values).flatten()

    blocks = torch.autograd.functional.jacobian(outputs, tuple(parameters))
    jacobian = torch.cat([block.reshape(10, -1) for block in blocks], 1)
    p = net(x).detach().softmax(1)
    by_output = torch.block_diag(*(torch.diag(row) - torch.outer(row, row) for row in p)) / len(x)
    output = net(x)
    found = gauss_newton_product(F.cross_entropy(output, y), output, parameters, parts)
    torch.testing.assert_close(flat(found), jacobian.T @ by_output @ jacobian @ vector)


def test_what_has_no_second_derivative_by_a_parameter_is_zero():
    a, b = data(3).requires_grad_(), data(3).requires_grad_()
    linear = (2 * a).sum()
    assert flat(hessian_product(linear, [a, b], [a.detach(), b.detach()])).tolist() == [0] * 6
    output = a * 2
    zero = gauss_newton_product(output.sum(), output, [a, b], [a.detach(), b.detach()])
    assert flat(zero).tolist() == [0] * 6
    found = hessian_product((a**2).sum(), [a, b], [a.detach(), b.detach()])
    torch.testing.assert_close(found[0], 2 * a.detach())
    assert found[1].tolist() == [0] * 3


def test_share_of_the_gradient_beside_the_output():
    net, x, y, parameters, *_ = setting()
    output = net(x)
    loss = F.cross_entropy(output, y)
    assert share_beside(loss, output, parameters) < 1e-12
    penalty = sum(p.square().sum() for p in parameters)
    assert share_beside(F.cross_entropy(net(x), y) + penalty, net(x), parameters) > 0.5


def test_parts_and_their_sum_have_complex_numbers_as_two_real_ones():
    parameters = [torch.zeros(2, 2), torch.zeros(3, dtype=torch.complex64)]
    vector = torch.arange(10.0)
    parts = parts_of(vector, parameters)
    assert [part.shape for part in parts] == [(2, 2), (3,)]
    assert parts[1].tolist() == [4 + 5j, 6 + 7j, 8 + 9j]
    total = torch.ones(10)
    add_parts(total, parts)
    assert total.tolist() == (vector + 1).tolist()


def test_a_complex_hessian_is_that_of_its_real_and_imaginary_parts():
    curvature = torch.tensor([3.0, 5.0], dtype=DOUBLE)
    z = torch.complex(data(1), data(1)).requires_grad_()
    loss = (curvature[0] * z.real**2 + curvature[1] * z.imag**2).sum() / 2
    (found,) = hessian_product(loss, [z], [torch.tensor([1 + 1j], dtype=torch.complex128)])
    assert found.tolist() == pytest.approx([3 + 5j])


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.project = nn.Linear(4, 12)

    def forward(self, x):
        q, k, v = self.project(x).unsqueeze(1).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


@pytest.mark.parametrize("make", [Attends, lambda: nn.LSTM(4, 3), lambda: nn.GRU(4, 3)])
def test_fused_kernels_have_second_derivatives_inside(make):
    torch.manual_seed(0)
    net, x = make(), torch.randn(2, 3, 4)
    parameters = list(net.parameters())
    backends = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cudnn.enabled
    with twice_differentiable(net):
        found = net(x)
        loss = (found[0] if isinstance(found, tuple) else found).square().sum()
        product = hessian_product(loss, parameters, [torch.ones_like(p) for p in parameters])
    assert all(part.isfinite().all() for part in product)
    assert backends == (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cudnn.enabled)


def test_fused_attention_has_none_outside():
    net, x = Attends(), torch.randn(2, 3, 4)
    parameters = list(net.parameters())
    with pytest.raises(RuntimeError, match="derivative"):
        hessian_product(net(x).square().sum(), parameters, [p.detach() for p in parameters])
