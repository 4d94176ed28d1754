"""What a credit signal says about the loss, against what the loss does: moves and correlations."""

import torch
from torch import Tensor

from lit_credit.functional._attention import in_float64
from lit_credit.functional._rows import check_same_shape, scaled_rows
from lit_credit.functional._shapes import check_shapes
from lit_credit.functional.norms import sample_norms

__all__ = ["relative_step", "sample_correlation", "sample_products"]


def relative_step(value: Tensor, direction: Tensor, size: float) -> Tensor:
    r"""A step along a direction, of a length relative to the value, per sample over all features.

    .. math:: \delta_n = \eta \, \|h_n\|_2 \, d_n / \|d_n\|_2

    Args:
        value: (N, ...) one vector h a sample.
        direction: (N, ...) of the same shape, d; its length does not count.
        size: eta, the length of the step in units of the value's; negative to step back.

    Returns:
        (N, ...) in the unit of ``value``, float32 or wider; NaN for a sample whose value or
        direction is zero or not finite.

    Raises:
        ValueError: if the shapes differ, or there is no feature dimension.

    Example:
        >>> import torch
        >>> relative_step(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2e-30]]), -0.1)
        tensor([[-0.0000, -0.5000]])
    """
    check_same_shape(value, direction, ("value", "direction"))
    dtype = torch.promote_types(torch.promote_types(value.dtype, direction.dtype), torch.float32)
    rows, scale = scaled_rows(direction.to(dtype), "direction")
    length, norm = sample_norms(value.to(dtype)), rows.square().sum(1).sqrt()
    defined = (length > 0) & length.isfinite() & (norm > 0) & norm.isfinite()
    factor = torch.where(defined, size * length / norm, torch.nan)
    shape = (-1, *[1] * (direction.ndim - 1))
    return direction.detach().to(dtype) / scale.view(shape) * factor.view(shape)


def sample_products(a: Tensor, b: Tensor) -> Tensor:
    r"""Inner product per sample over all features, at any scale.

    .. math:: \langle a_n, b_n \rangle = \sum_d a_{nd} b_{nd}

    Of complex vectors the product is the real part of :math:`\sum a_n \bar b_n`.

    Args:
        a: (N, ...) one vector a sample; everything after the first dimension is flattened.
        b: (N, ...) of the same shape.

    Returns:
        (N,) in the unit of ``a`` times that of ``b``, float32 or the wider of the two dtypes.

    Raises:
        ValueError: if the shapes differ, or there is no feature dimension.

    Example:
        >>> import torch
        >>> sample_products(torch.tensor([[1e-30, 2e-30]]), torch.tensor([[3e30, 4e30]])).item()
        11.0
    """
    check_same_shape(a, b, ("a", "b"))
    dtype = torch.promote_types(a.dtype, b.dtype)
    (u, m), (v, n) = scaled_rows(a.to(dtype), "a"), scaled_rows(b.to(dtype), "b")
    return (u * v).sum(1) * m.squeeze(1) * n.squeeze(1)


def sample_correlation(predicted: Tensor, observed: Tensor) -> Tensor:
    r"""Pearson's correlation per sample over trials, at any scale.

    .. math::
        \rho_n = \frac{\sum_k (p_{nk} - \bar p_n)(o_{nk} - \bar o_n)}
        {\sqrt{\sum_k (p_{nk} - \bar p_n)^2 \sum_k (o_{nk} - \bar o_n)^2}}

    Without any relation its mean is 0, and its standard deviation 1 / sqrt(K - 1).

    Args:
        predicted: (N, K) one number a sample and trial.
        observed: (N, K).

    Returns:
        (N,) in [-1, 1], float64; NaN where either side is the same in all trials, or not finite.

    Raises:
        ValueError: if the shapes differ, or are not (N, K).

    Example:
        >>> import torch
        >>> sample_correlation(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[5.0, 4.0, 3.0]]))
        tensor([-1.], dtype=torch.float64)
    """
    check_shapes("(N, K), (N, K)", predicted=predicted, observed=observed)
    p, o = _centred(predicted, "predicted"), _centred(observed, "observed")
    correlation = (p * o).sum(1) / (p.square().sum(1) * o.square().sum(1)).sqrt()
    return correlation.clamp(-1, 1)


def _centred(x: Tensor, name: str) -> Tensor:
    """Rows (N, K) less their means, of a size near 1; NaN for a row whose entries are equal."""
    if x.numel() == 0:
        return torch.full(x.shape, torch.nan, dtype=torch.float64)
    rows, _ = scaled_rows(in_float64(x), name)
    centred, _ = scaled_rows(rows - rows.mean(1, keepdim=True), name)
    varies = rows.amax(1, keepdim=True) > rows.amin(1, keepdim=True)
    return torch.where(varies, centred, torch.nan)
