"""Linear maps and convolutions whose backward sends the error through a feedback matrix.

Forward and backward run once each, as in backpropagation. Given the error that arrives, the
gradients of weight and bias are the true ones. A feedback that requires a gradient gets the
gradient of its weight, that of ``<B, stopgrad(dL/dW)>``: the rule of Kolen and Pollack. Gradients
of gradients (``create_graph=True``) and ``torch.func`` transforms are refused with an error; they
work inside ``with lit_credit.feedback.exact_backward(net)``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from lit_credit.utils.private_names import function_of, without_view

__all__ = ["effective_feedback", "feedback_convolution", "feedback_linear", "is_feedback"]


def effective_feedback(feedback: Tensor, signs: Tensor | None) -> Tensor:
    """The matrix that the error goes through: B itself, or M with the signs of a weight.

    Args:
        feedback: B; with ``signs``, the magnitudes M.
        signs: a tensor of the same shape whose signs are used, or None.

    Returns:
        B, or ``M * sign(signs)``, which is 0 where ``signs`` is 0.

    Example:
        >>> effective_feedback(torch.tensor([2.0, 3.0, 4.0]), torch.tensor([0.1, -0.1, 0.0]))
        tensor([ 2., -3.,  0.])

    Reference:
        Liao, Leibo, Poggio, How Important is Weight Symmetry in Backpropagation?, 2016,
        arXiv:1510.05067.
    """
    return feedback if signs is None else torch.sign(signs).mul_(feedback)


def feedback_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, feedback: Tensor, signs: Tensor | None = None
) -> Tensor:
    """The linear map y = x W' + b, whose backward is dL/dx = dL/dy B.

    Args:
        x: input, (..., in).
        weight: W, (out, in).
        bias: b, (out,), or None.
        feedback: B, (out, in).
        signs: see :func:`effective_feedback`.

    Returns:
        y, (..., out), bit-equal to ``torch.nn.functional.linear(x, weight, bias)``.

    Example:
        >>> x = torch.ones(1, 2, requires_grad=True)
        >>> y = feedback_linear(x, torch.eye(2), None, torch.tensor([[0.0, 3.0], [4.0, 0.0]]))
        >>> y.sum().backward()
        >>> x.grad
        tensor([[4., 3.]])

    Reference:
        Lillicrap, Cownden, Tweed, Akerman, Random synaptic feedback weights support error
        backpropagation for deep learning, 2016, doi:10.1038/ncomms13276.
    """
    x, weight, bias = _as_autocast_would(x, weight, bias)
    y: Tensor = _Linear.apply(x, weight, bias, feedback, signs)
    return y


def feedback_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    feedback: Tensor,
    signs: Tensor | None = None,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """A convolution of 1 to 3 dimensions whose backward sends the error through B in place of W.

    Args:
        x: input, (N, in, *size).
        weight: W, (out, in / groups, *kernel).
        bias: b, (out,), or None.
        feedback: B, of W's shape.
        signs: see :func:`effective_feedback`.
        stride: one number per dimension.
        padding: zeros added on both sides, one number per dimension.
        dilation: one number per dimension.
        groups: number of groups of channels.

    Returns:
        The output, bit-equal to ``torch.nn.functional.conv2d`` and its siblings.
    """
    x, weight, bias = _as_autocast_would(x, weight, bias)
    geometry = (list(stride), list(padding), list(dilation), groups)
    y: Tensor = _Convolution.apply(x, weight, bias, feedback, signs, *geometry)
    return y


class _Linear(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        feedback: Tensor,
        signs: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(x, feedback, signs)
        y = F.linear(x, weight, bias)
        # With more than two dimensions y is a view of a product. Autograd would refuse to change it
        # in place, which the output of a plain layer allows.
        return without_view(y) if y.dim() > 2 else y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_order()
        x, feedback, signs = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, needs_feedback, _ = ctx.needs_input_grad
        grad_x = grad_weight = grad_bias = None
        if needs_x:
            grad_x = grad.matmul(effective_feedback(feedback, signs).to(grad.dtype))
        if grad.dim() != 2:
            grad, x = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        if needs_weight or needs_feedback:
            grad_weight = grad.t().mm(x)
        if needs_bias:
            grad_bias = grad.sum(0)
        # A learned feedback gets the gradient of the weight (Kolen-Pollack).
        return grad_x, grad_weight, grad_bias, grad_weight if needs_feedback else None, None


class _Convolution(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        feedback: Tensor,
        signs: Tensor | None,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        groups: int,
    ) -> Tensor:
        ctx.save_for_backward(x, feedback, signs)
        ctx.geometry = (stride, padding, dilation, False, [0] * len(stride), groups)
        return torch.convolution(x, weight, bias, *ctx.geometry)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_order()
        x, feedback, signs = ctx.saved_tensors
        # dL/dx depends on the weight but not on x, dL/dW on x but not on the weight: one call with
        # B as the weight gives both.
        weight = effective_feedback(feedback, signs).to(grad.dtype)
        needs_x, needs_weight, needs_bias, needs_feedback, *_ = ctx.needs_input_grad
        needs = [needs_x, needs_weight or needs_feedback, needs_bias]
        grads = torch.ops.aten.convolution_backward(
            grad, x, weight, [weight.shape[0]], *ctx.geometry, needs
        )
        return (*grads, grads[1] if needs_feedback else None, None, None, None, None, None)


def is_feedback(node: Any) -> bool:
    """Whether a node of the autograd graph sends the error through a feedback."""
    return function_of(node) in (_Linear, _Convolution)


def _refuse_second_order() -> None:
    # Autograd records the backward pass only for create_graph=True. torch's once_differentiable
    # checks the same at ten times the cost.
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError(
            "A feedback layer has no second derivative: its backward is not the gradient of its "
            "forward. Drop create_graph=True, or run forward and backward inside of "
            "`with lit_credit.feedback.exact_backward(net):`."
        )


def _as_autocast_would(
    x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Cast outside of the Function, so that autograd casts the gradients back."""
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return x, weight, bias
    dtype = torch.get_autocast_dtype(device)
    x, weight = (t if t.dtype == torch.float64 else t.to(dtype) for t in (x, weight))
    return x, weight, None if bias is None else bias.to(weight.dtype)
