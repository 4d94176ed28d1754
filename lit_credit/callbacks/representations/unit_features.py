"""Outputs of units as rows of features, of a bounded number."""

import math
from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor
from torch.nn import functional as F

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.points import stream_points, unit_names
from lit_credit.inspect.capture import Point
from lit_credit.inspect.channels import shape_dim

__all__ = [
    "double",
    "features",
    "point_names",
    "points_to_read",
    "pooled_shape",
    "rows_first",
    "rows_for",
    "sample_rows",
]


def points_to_read(
    callback: Callback, module: LightningModule, units: Sequence[str] | None, read: str
) -> list[Point]:
    """The outputs of units, or for ``stream`` the points of the residual stream."""
    if read == "stream":
        return stream_points(callback, module, units)
    return [Point(name, "output") for name in unit_names(callback, module, units)]


def point_names(points: Sequence[Point]) -> list[str]:
    """Names for figures: of the unit, or of the unit that reads the point.

    Example:
        >>> point_names([Point("net.block", "input"), Point("net.block", "output")])
        ['into block', 'block']
    """
    into = {"input": "into ", "output": ""}
    return [f"{into[point.side]}{point.module.removeprefix('net.')}" for point in points]


def double(x: Tensor) -> Tensor:
    """In float64, outside of any graph; on the CPU if the device (``mps``) has no float64."""
    x = x.detach()
    return (x.cpu() if x.device.type == "mps" else x).double()


def features(value: Tensor, most: int, channel: int | None = None) -> Tensor:
    """The output of a unit as rows of features, (N, d), flattened.

    Wider outputs than ``most`` are averaged over neighbouring positions first, onto the finest grid
    that fits. Positions are T of (N, T, C), and H and W of (N, C, H, W); or of (N, H, W, C), known
    by H = W. Channels are never averaged, so that d may exceed ``most``.

    Args:
        value: (N, ...); a complex number becomes two.
        most: the largest d.
        channel: the dimension of the channels; None goes by the shape.

    Example:
        >>> features(torch.arange(8.0).reshape(1, 4, 2), 4)
        tensor([[1., 5., 2., 6.]])
    """
    value = value.detach()
    if value.is_complex():
        value = torch.view_as_real(value.resolve_conj()).flatten(-2)
    if value.ndim < 3 or value[:1].numel() <= most:
        return value.reshape(len(value), -1)
    value = value.movedim(shape_dim(value) if channel is None else channel, 1)
    grid = pooled_shape(value.shape[1], value.shape[2:], most)
    return _averaged(value.to(torch.promote_types(value.dtype, torch.float32)), grid).flatten(1)


def pooled_shape(channels: int, sizes: tuple[int, ...], most: int) -> tuple[int, ...]:
    """The finest grid of positions, in the proportions of ``sizes``, that fits.

    Example:
        >>> pooled_shape(64, (32, 32), 4096)
        (8, 8)
    """
    longest = max(sizes)
    for k in range(longest, 1, -1):
        grid = tuple(max(1, size * k // longest) for size in sizes)
        if channels * math.prod(grid) <= most:
            return grid
    return (1,) * len(sizes)


def rows_for(value: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """The output of a unit with one row for each target, (M, ...), or None if it has another shape.

    Args:
        value: for targets (N,): (N, ...). For targets (N, T): (N, T, ...), (N, C, T) or
            (N T, ...), and likewise for further positions.
        shape: of the targets, (N,), or (N, T, ...) for targets at positions.
    """
    places = len(shape)
    if places > 1 and value.shape == shape:
        return None  # no features: it is not read position by position
    if places > 1 and value.shape[:places] == shape:
        return value.flatten(0, places - 1)
    if places > 1 and value.shape[:1] == shape[:1] and value.shape[2:] == shape[1:]:
        return value.movedim(1, -1).flatten(0, -2)  # channels are second
    return value if value.ndim > 1 and len(value) == math.prod(shape) else None


def rows_first(chunk: Chunk, values: Mapping[Point, Tensor], rows: int) -> dict[Point, Tensor]:
    """The values at points with the samples first, also those of nets with the batch second.

    Where both dimensions have as many entries as there are samples, the net runs once more on one
    sample less, which shows the dimension of the samples.

    Args:
        chunk: the chunk.
        values: (N, ...) or (T, N, ...) by point.
        rows: the samples N.
    """
    second = {p for p, v in values.items() if v.ndim > 2 and v.shape[1] == rows != len(v)}
    square = [p for p, v in values.items() if v.ndim > 2 and v.shape[:2] == (rows, rows)]
    if square and chunk.rows == rows > 2:
        fewer = chunk.part(0, rows - 1).values(square)
        second |= {p for p, v in fewer.items() if v.shape[:2] == (rows, rows - 1)}
    return {p: v.transpose(0, 1) if p in second else v for p, v in values.items()}


def sample_rows(value: Tensor, rows: int | None) -> Tensor | None:
    """The output of a unit with one row for each sample, or None if it has another shape.

    Args:
        value: (N, ...) or (N T, ...).
        rows: the samples N; None takes the first dimension.
    """
    if value.ndim < 1:
        return None
    if rows is None or len(value) == rows:
        return value
    return value.reshape(rows, -1, *value.shape[1:]) if len(value) % rows == 0 else None


def _averaged(value: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Means over neighbouring positions: (N, C, *sizes) to (N, C, *grid)."""
    for dim, size in enumerate(grid, start=2):
        last = value.movedim(dim, -1)
        flat = F.adaptive_avg_pool1d(last.reshape(len(last), -1, last.shape[-1]), size)
        value = flat.reshape(*last.shape[:-1], size).movedim(-1, dim)
    return value
