"""Second derivatives of a loss times a vector, by gradients of gradients."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lit_credit.utils.private_names import function_of

__all__ = [
    "add_parts",
    "differentiable_once",
    "gauss_newton_product",
    "hessian_product",
    "length_of",
    "parts_of",
    "share_beside",
    "twice_differentiable",
]


_MARK = "torch::autograd::Error"
"""The node of the graph that stands for a derivative that may not be taken."""


@contextmanager
def twice_differentiable(module: nn.Module) -> Iterator[None]:
    """Use implementations that have second derivatives inside the ``with``.

    The fused kernels of ``scaled_dot_product_attention`` and cuDNN's recurrent layers have none;
    torch has another implementation of both.
    """
    recurrent = any(isinstance(child, nn.RNNBase) for child in module.modules())
    plain = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    with sdpa_kernel(SDPBackend.MATH), plain:
        yield


def hessian_product(
    loss: Tensor, parameters: Sequence[Tensor], vectors: Sequence[Tensor]
) -> list[Tensor]:
    """The product of the Hessian of a loss with a vector.

    Args:
        loss: a scalar with a graph, which is used up.
        parameters: what the loss is differentiated by.
        vectors: the parts of the vector, one in the shape of each parameter.

    Returns:
        The parts of the product.

    Example:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> hessian_product((x**3).sum(), [x], [torch.tensor([1.0, 1.0])])
        [tensor([ 6., 12.])]
    """
    return _backward(_gradients(loss, parameters), parameters, vectors)


def gauss_newton_product(
    loss: Tensor, output: Tensor, parameters: Sequence[Tensor], vectors: Sequence[Tensor]
) -> list[Tensor]:
    """The product of the Gauss-Newton matrix J' H J of a loss with a vector.

    J is the Jacobian of the output by the parameters, H the Hessian of the loss by the output.

    Args:
        loss: a scalar with a graph, which is used up.
        output: what the loss is computed from, a part of that graph.
        parameters: what the loss is differentiated by.
        vectors: the parts of the vector, one in the shape of each parameter.

    Returns:
        The parts of the product.

    Example:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> output = x**2
        >>> gauss_newton_product((output**2).sum(), output, [x], [torch.tensor([1.0, 1.0])])
        [tensor([ 8., 32.])]
    """
    error = torch.zeros_like(output, requires_grad=True)
    # J' error is linear in the error, so that its derivative by it, times v, is J v.
    (moved,) = _backward(_gradients(output, parameters, error), [error], vectors)
    (bent,) = _backward(_gradients(loss, [output]), [output], [moved])
    return _backward([output], parameters, [bent])


def share_beside(loss: Tensor, output: Tensor, parameters: Sequence[Tensor]) -> float:
    """The share of the gradient that does not come through the output, as a ratio of norms.

    It is 0, or rounding, if the loss depends on the parameters only through the output.
    """
    whole = _gradients(loss, parameters)
    through = _backward([output], parameters, _gradients(loss, [output]))
    pairs = [(a.detach(), b) for a, b in zip(whole, through, strict=True)]
    beside = sum(float((a - b).double().norm()) ** 2 for a, b in pairs)
    size = sum(float(a.double().norm()) ** 2 for a, _ in pairs)
    return (beside / size) ** 0.5 if size else float(beside > 0)


def differentiable_once(loss: Tensor, parameters: Sequence[Tensor]) -> list[str]:
    """Names of the functions behind a loss whose backward is marked as not differentiable.

    ``torch.autograd.grad`` leaves out their part of a second derivative without an error.
    """
    made: set[Any] = {function_of(node) for node in _nodes([loss])} - {None}
    if not any(node.name() == _MARK for node in _nodes(_gradients(loss, parameters))):
        return []
    # `once_differentiable` wraps the backward.
    marked = [kind for kind in made if hasattr(kind.backward, "__wrapped__")]
    return sorted(f"{kind.__module__}.{kind.__qualname__}" for kind in marked) or ["a function"]


def _nodes(values: Sequence[Tensor]) -> list[Any]:
    """All nodes of the graphs of some tensors."""
    seen = set[Any]()
    waiting: list[Any] = [value.grad_fn for value in values]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [after for after, _ in node.next_functions]
    return list(seen)


def length_of(parameters: Sequence[Tensor]) -> int:
    """The number of real numbers in some tensors."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in parameters)


def parts_of(vector: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Cut a vector into parts of the shape, dtype and device of each parameter.

    A complex number takes two real ones.

    Args:
        vector: (n,), see :func:`length_of`.
        parameters: the parameters.
    """
    parts = torch.split(vector, [length_of([p]) for p in parameters])
    return [
        torch.view_as_complex(part.view(*p.shape, 2)).to(p.device, p.dtype)
        if p.is_complex()
        else part.view(p.shape).to(p.device, p.dtype)
        for part, p in zip(parts, parameters, strict=True)
    ]


def add_parts(vector: Tensor, parts: Sequence[Tensor]) -> None:
    """Add tensors to the parts of a vector, in place."""
    places = torch.split(vector, [length_of([x]) for x in parts])
    for part, added in zip(places, parts, strict=True):
        real = torch.view_as_real(added.resolve_conj()) if added.is_complex() else added
        part += real.reshape(-1).to(part)


def _gradients(
    value: Tensor, by: Sequence[Tensor], error: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Gradients with a graph, dense; zero for what the value does not depend on."""
    errors = None if error is None else [error]
    found = torch.autograd.grad(
        [value], by, errors, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return tuple(g if g.layout == torch.strided else g.to_dense() for g in found)


def _backward(
    values: Sequence[Tensor], by: Sequence[Tensor], errors: Sequence[Tensor]
) -> list[Tensor]:
    """Products of transposed Jacobians with errors, summed; zero without a dependence."""
    pairs = [(v, e) for v, e in zip(values, errors, strict=True) if v.requires_grad]
    if not pairs:
        return [torch.zeros_like(one) for one in by]
    found = torch.autograd.grad(
        [v for v, _ in pairs],
        by,
        [e for _, e in pairs],
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return [g.detach().to_dense() for g in found]
