"""Which dimension of a layer's or a unit's output holds its features."""

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lit_credit.inspect.capture import Point
from lit_credit.inspect.unit_names import unit_modules
from lit_credit.utils.private_names import AnyConvolution, NormWithStatistics

__all__ = ["channel_of", "feature_dim", "shape_dim"]

_BY_CHANNEL = (AnyConvolution, NormWithStatistics, nn.GroupNorm)
"""Layers whose features are the second dimension."""


def channel_of(layer: nn.Module) -> int:
    """The dimension of the features in a layer's output: 1 after a convolution, else -1."""
    return 1 if isinstance(layer, _BY_CHANNEL) else -1


def feature_dim(module: LightningModule, point: Point, value: Tensor) -> int:
    """The dimension of the features of a value at a point.

    The layer of the unit that is next to the point decides: the second dimension belongs to
    convolutions, and the last one to other layers whose width it has. Otherwise it is the last one
    of (N, T, C) and (N, H, W, C) with H = W, and the second one of (N, C, H, W).

    Args:
        module: the module.
        point: the input or output of a unit.
        value: (N, ...) what passes there.
    """
    if value.ndim < 3:
        return value.ndim - 1
    parts = [part for unit in unit_modules(module, point.module) for part in unit.modules()]
    layers = [part for part in parts if next(part.parameters(recurse=False), None) is not None]
    layer = layers[-1 if point.side == "output" else 0] if layers else None
    if layer is not None and channel_of(layer) == 1:
        return 1
    if value.ndim == 3:
        return 2
    weight = getattr(layer, "weight", None)
    width = weight.shape[0] if isinstance(weight, Tensor) and weight.ndim else None
    if point.side == "output" and (value.shape[1] == width) != (value.shape[-1] == width):
        return 1 if value.shape[1] == width else value.ndim - 1
    return shape_dim(value)


def shape_dim(value: Tensor) -> int:
    """The dimension of the features, by the shape (N, ...) alone."""
    if value.ndim < 4:
        return value.ndim - 1
    return 3 if value.ndim == 4 and value.shape[1] == value.shape[2] != value.shape[3] else 1
