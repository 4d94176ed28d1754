"""Samples as rows, scaled so that their squares neither overflow nor underflow."""

import math

import torch
from torch import Tensor


def in_float32(*tensors: Tensor) -> list[Tensor]:
    """The values in one dtype, float32 at least, outside of any graph."""
    dtype = torch.float32
    for x in tensors:
        dtype = torch.promote_types(dtype, x.dtype)
    return [x.detach().to(dtype) for x in tensors]


def in_float64(x: Tensor) -> Tensor:
    """The values in float64, or in complex128."""
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


def magnitude(x: Tensor, dims: int | tuple[int, ...]) -> Tensor:
    """The largest magnitude, down to a power of two: to divide by it rounds nothing.

    After that squares neither overflow nor underflow. It is 1 for zeros, for what is not finite and
    for nothing at all, which stay as they are.
    """
    if x.numel() == 0:
        return x.new_ones(())
    peak = x.abs().amax(dims, keepdim=True)
    # The logarithm of the largest numbers rounds up to that of infinity.
    largest = math.frexp(torch.finfo(x.dtype).max)[1] - 1
    power = peak.log2().floor().clamp(max=largest).exp2()
    return torch.where((power > 0) & peak.isfinite(), power, torch.ones_like(power))


def scaled_rows(x: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Flatten each sample to a row and divide it by its magnitude, outside of any graph.

    Args:
        x: (N, ...); half precision and integers become float32, a complex number becomes two.
        name: of the argument, for the error.

    Returns:
        The rows (N, D), and their scales (N, 1), see :func:`magnitude`.

    Raises:
        ValueError: if ``x`` has no feature dimension.
    """
    if x.ndim < 2:
        raise ValueError(
            f"`{name}` holds one vector a sample, (N, ...) with at least 2 dimensions, got "
            f"{tuple(x.shape)}. For a single vector pass `{name}[None]`."
        )
    x = x.flatten(1)
    (rows,) = in_float32(torch.view_as_real(x.resolve_conj()).flatten(1) if x.is_complex() else x)
    scale = magnitude(rows, 1).expand(len(rows), 1)
    return rows / scale, scale


def check_same_shape(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    """Raise a ValueError that names both shapes unless they are equal."""
    if a.shape != b.shape:
        raise ValueError(
            f"`{names[0]}` and `{names[1]}` must have one shape, got {tuple(a.shape)} and "
            f"{tuple(b.shape)}. Reshape or transpose one of them."
        )
