"""The size of a batch at which the noise of its gradient equals the signal."""

from typing import NamedTuple

import torch
from torch import Tensor

from lit_credit.functional._shapes import check_shapes

__all__ = ["NoiseScale", "noise_scale"]


class NoiseScale(NamedTuple):
    """Unbiased estimates of signal and noise, and their ratio.

    Attributes:
        signal: squared norm of the mean gradient; an estimate may be negative.
        noise: sum of the variances of a single row's gradient over all parameters.
        scale: ``noise / signal``, in rows; NaN where ``signal`` is not positive.
    """

    signal: Tensor
    noise: Tensor
    scale: Tensor


def noise_scale(small: Tensor, big: Tensor, *, small_rows: int, big_rows: int) -> NoiseScale:
    r"""The simple noise scale, from squared norms of gradients of two batch sizes.

    .. math:: |G|^2 = \frac{B\,g_B - b\,g_b}{B - b}, \quad
        \mathrm{tr}\,\Sigma = \frac{g_b - g_B}{1/b - 1/B}, \quad
        B_{\text{simple}} = \mathrm{tr}\,\Sigma / |G|^2

    Here :math:`g_b` is the squared norm of the gradient of a mean over b rows, and b < B. The
    estimates of signal and noise are unbiased; their ratio is not.

    Args:
        small: (...) squared norms for ``small_rows`` rows, as a rule means over several batches.
        big: (...) squared norms for ``big_rows`` rows.
        small_rows: b.
        big_rows: B.

    Returns:
        Three float64 tensors (...).

    Raises:
        ValueError: if the shapes differ, or b is not below B.

    Example:
        >>> found = noise_scale(torch.tensor(11.0), torch.tensor(2.0), small_rows=1, big_rows=10)
        >>> tuple(round(part.item(), 6) for part in found)
        (1.0, 10.0, 10.0)

    Reference:
        McCandlish, Kaplan, Amodei, An Empirical Model of Large-Batch Training, 2018,
        arXiv 1812.06162, equations 2.9, A.2 and A.3.
    """
    check_shapes("(n), (n)", small=small.reshape(-1), big=big.reshape(-1))
    if not 0 < small_rows < big_rows:
        raise ValueError(
            f"`small_rows` is {small_rows} and `big_rows` is {big_rows}, expected a positive "
            "number and a larger one."
        )
    g_b, g_big = small.detach().double(), big.detach().double()
    share = small_rows / big_rows
    signal = (g_big - share * g_b) / (1 - share)
    noise = (g_b - g_big) * small_rows / (1 - share)
    return NoiseScale(signal, noise, torch.where(signal > 0, noise / signal, torch.nan))
