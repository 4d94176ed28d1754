"""Attaching gradients that are known already to the scalar that is differentiated."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

__all__ = ["attached"]


def attached(scalar: Tensor, receivers: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """The scalar, with given gradients by some tensors beside its own.

    The result has the value of ``scalar``. Its gradient by receiver r is gradient r. So an update
    that is not the gradient of a loss can be had from one scalar, without the sum of all products,
    which has no meaning and may overflow.

    Args:
        scalar: a scalar, with or without a graph.
        receivers: tensors of any shape; those that need no gradient are left out.
        gradients: a tensor of the shape of each receiver, of any type of floating-point number.

    Example:
        >>> weight = torch.zeros(2, requires_grad=True)
        >>> scalar = attached(torch.tensor(5.0), [weight], [torch.tensor([1.0, -1.0])])
        >>> (2 * scalar).backward()
        >>> scalar.item(), weight.grad.tolist()
        (5.0, [2.0, -2.0])
    """
    pairs = [(r, g) for r, g in zip(receivers, gradients, strict=True) if r.requires_grad]
    tensors = [r for r, _ in pairs]
    known = tuple(g.detach() for _, g in pairs)
    return cast(Tensor, _Attached.apply(known, scalar, *tensors))


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gradients: Sequence[Tensor], scalar: Tensor, *receivers: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*gradients)
        ctx.types = [tensor.dtype for tensor in receivers]
        return scalar.view_as(scalar)

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        # The factor of a GradScaler is beyond the range of half precision, and so may gradients be.
        scaled = ((factor.to(_wide(g)) * g.to(_wide(g))) for g in ctx.saved_tensors)
        return None, factor, *(g.to(t) for g, t in zip(scaled, ctx.types, strict=True))


def _wide(tensor: Tensor) -> torch.dtype:
    """The type in which a product with the tensor is taken: float32 for half precision."""
    return torch.promote_types(tensor.dtype, torch.float32)
