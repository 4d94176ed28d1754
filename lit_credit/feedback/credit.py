"""Credit signals from the error at the output, and their way into the graph."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["inject_credit", "output_error", "rms_normalized"]


class _Injection(torch.autograd.Function):
    """A zero in the forward pass; in the backward pass each output receives its credit."""

    @staticmethod
    def forward(ctx: Any, credits: Sequence[Tensor], *outputs: Tensor) -> Tensor:
        ctx.credits = credits
        return outputs[0].new_zeros(())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        # scale is 1, or what a GradScaler multiplies every gradient with.
        return None, *(credit * scale for credit in ctx.credits)


def inject_credit(outputs: Sequence[Tensor], credits: Sequence[Tensor]) -> Tensor:
    """The scalar whose gradient at each output is its credit: ``sum_l <f_l, stopgrad(a_l)>``.

    Its value is zero: computing the sum would cost a pass over every activation, and nothing
    needs it.

    Args:
        outputs: units' outputs f_l, of any shapes.
        credits: credit signals a_l, of the same shapes.

    Returns:
        A zero () attached to the graphs of all outputs.

    Example:
        >>> f = torch.ones(2, requires_grad=True)
        >>> torch.autograd.grad(inject_credit([f], [torch.tensor([3.0, 4.0])]), f)
        (tensor([3., 4.]),)
    """
    scalar: Tensor = _Injection.apply(
        [credit.to(output.dtype) for output, credit in zip(outputs, credits, strict=True)],
        *outputs,
    )
    return scalar


def output_error(loss: Tensor, output: Tensor) -> Tensor:
    """The error e = d loss / d output, of the output's shape; the graph stays usable.

    Raises:
        ValueError: if the output is no tensor, or the loss does not depend on it.
    """
    if not isinstance(output, Tensor):
        raise ValueError(
            f"the net's output is {type(output).__name__}, but this rule needs one tensor to take "
            "the error at. Wrap the net so that it returns a tensor."
        )
    (error,) = torch.autograd.grad(loss, output, retain_graph=True)
    return error


def rms_normalized(credit: Tensor, samples: int, eps: float = 1e-6) -> Tensor:
    """Credit of unit root mean square per sample: ``a / (rms(a) + eps) / samples``.

    The rms is that of the credit of a per-sample loss. A mean loss divides every credit by the
    number of samples, so it is multiplied out first and divided by again at the end.

    Args:
        credit: (..., d), a gradient of a mean over ``samples``.
        samples: rows that the loss averages over.
        eps: added to the rms.

    Example:
        >>> rms_normalized(torch.tensor([[3.0, 4.0]]), samples=1)
        tensor([[0.8485, 1.1314]])
    """
    root_d = credit.shape[-1] ** 0.5
    rms = torch.linalg.vector_norm(credit, dim=-1, keepdim=True) * (samples / root_d)
    normalized: Tensor = credit / (rms + eps)
    return normalized
