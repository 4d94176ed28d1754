"""One number and its spread from several seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_credit.functional._rows import magnitude

__all__ = ["MeanAndSd", "geometric_mean", "mean_and_sd"]


class MeanAndSd(NamedTuple):
    """A mean and the sample standard deviation around it."""

    mean: Tensor
    sd: Tensor


def mean_and_sd(values: Tensor | Sequence[float]) -> MeanAndSd:
    r"""Mean and sample standard deviation over seeds.

    .. math:: \bar x = \tfrac1n \sum_i x_i, \quad s^2 = \tfrac1{n-1} \sum_i (x_i - \bar x)^2

    Args:
        values: (n, ...) one entry a seed; NaN in, NaN out.

    Returns:
        Two float64 tensors of shape (...); the deviation of a single value is NaN, and so is the
        mean of none.

    Raises:
        ValueError: if ``values`` is a single number.

    Example:
        >>> mean, sd = mean_and_sd([0.30, 0.31, 0.32])
        >>> round(mean.item(), 4), round(sd.item(), 4)
        (0.31, 0.01)
    """
    x = _one_a_seed(values)
    if len(x) == 0:
        undefined = x.new_full(x.shape[1:], torch.nan)
        return MeanAndSd(undefined, undefined.clone())
    mean = x.mean(0)
    if len(x) == 1 or mean.numel() == 0:  # of nothing `std` warns
        return MeanAndSd(mean, torch.full_like(mean, torch.nan))
    scale = magnitude(x, 0)
    return MeanAndSd(mean, (x / scale).std(0, correction=1) * scale[0])


def geometric_mean(values: Tensor | Sequence[float]) -> Tensor:
    r"""Geometric mean over seeds: the mean for norms that differ by factors.

    .. math:: \exp\left(\tfrac1n \sum_i \log x_i\right)

    Args:
        values: (n, ...) one entry a seed, positive; NaN in, NaN out.

    Returns:
        A float64 tensor of shape (...); NaN where a value is negative, and for no values.

    Raises:
        ValueError: if ``values`` is a single number.

    Example:
        >>> round(geometric_mean([1e-6, 1e-4]).item(), 8)
        1e-05
    """
    x = _one_a_seed(values)
    if len(x) == 0:
        return x.new_full(x.shape[1:], torch.nan)
    return x.log().mean(0).exp()


def _one_a_seed(values: Tensor | Sequence[float]) -> Tensor:
    x = torch.as_tensor(values, dtype=torch.float64).detach()
    if x.ndim == 0:
        raise ValueError(f"`values` is the number {x.item()}, expected (n, ...), one entry a seed.")
    return x
