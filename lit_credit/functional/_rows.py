"""Samples as rows, scaled so that their squares neither overflow nor underflow."""

import torch
from torch import Tensor


def scaled_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Flatten each sample to a row and divide it by its largest magnitude, outside of any graph.

    Args:
        x: (N, ...), any real dtype; half precision and integers become float32.

    Returns:
        The rows (N, D), and their scales (N, 1): the row's largest magnitude, or 1 for a row that
        is zero or not finite, which is then left as it is.

    Raises:
        ValueError: if ``x`` has no feature dimension.
    """
    if x.ndim < 2:
        raise ValueError(
            f"expected one vector a sample, shape (N, ...) with at least 2 dimensions, got "
            f"{tuple(x.shape)}. For a single vector pass `x[None]`."
        )
    rows = x.detach().flatten(1).to(torch.promote_types(x.dtype, torch.float32))
    if rows.shape[1] == 0:
        return rows, rows.new_ones(len(rows), 1)
    peak = rows.abs().amax(1, keepdim=True)
    scale = torch.where((peak > 0) & peak.isfinite(), peak, torch.ones_like(peak))
    return rows / scale, scale


def check_same_shape(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    """Raise a ValueError that names both shapes unless they are equal."""
    if a.shape != b.shape:
        raise ValueError(
            f"`{names[0]}` and `{names[1]}` must have one shape, got {tuple(a.shape)} and "
            f"{tuple(b.shape)}. Reshape or transpose one of them."
        )
