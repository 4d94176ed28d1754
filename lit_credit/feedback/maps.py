"""Carrying credit between feature maps of different sizes."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

__all__ = ["pooling_windows", "spread"]


def spread(credit: Tensor, positions: Sequence[int]) -> Tensor:
    r"""Resample a credit to the positions of another map, by the adjoint of average pooling.

    ``R(a)[p] = sum_{q: p in w(q)} a[q] / |w(q)|``, where w(q) is the window of position q in an
    adaptive average pooling from the given positions to those of the credit. This is the gradient
    that passes back through that pooling. So the sum over all positions stays the same. A map of
    half the size gives a quarter of each of its entries to each pixel of a 2 x 2 square; a flat
    credit (one position) is spread evenly. If the credit has more positions, windows have one pixel
    each, and the credits of a pixel's copies are summed up.

    Args:
        credit: (N, C, H', W'), or any other number of positional dimensions.
        positions: (H, W), as many dimensions as the credit has.

    Returns:
        (N, C, H, W).

    Example:
        >>> spread(torch.tensor([[[[4.0, 8.0]]]]), [2, 4])
        tensor([[[[1., 1., 2., 2.],
                  [1., 1., 2., 2.]]]])
    """
    own = credit.shape[2:]
    if tuple(own) == tuple(positions):
        return credit
    if all(n % m == 0 for n, m in zip(positions, own, strict=True)):
        factors = [n // m for n, m in zip(positions, own, strict=True)]
        sizes = [size for pair in zip(own, factors, strict=True) for size in pair]
        split = [size for m in own for size in (m, 1)]
        view = (credit / prod(factors)).reshape(*credit.shape[:2], *split)
        return view.expand(*credit.shape[:2], *sizes).reshape(*credit.shape[:2], *positions)
    for index, (n, m) in enumerate(zip(positions, own, strict=True), start=2):
        if n != m:
            windows = pooling_windows(n, m).to(credit)
            credit = (credit.movedim(index, -1) @ windows).movedim(-1, index)
    return credit


def pooling_windows(inputs: int, outputs: int) -> Tensor:
    """The matrix (outputs, inputs) of adaptive average pooling along one dimension.

    Example:
        >>> pooling_windows(3, 2)
        tensor([[0.5000, 0.5000, 0.0000],
                [0.0000, 0.5000, 0.5000]])
    """
    windows = torch.zeros(outputs, inputs)
    for q in range(outputs):
        start, end = q * inputs // outputs, -(-(q + 1) * inputs // outputs)
        windows[q, start:end] = 1 / (end - start)
    return windows
