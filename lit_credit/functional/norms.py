"""Lengths of activations and gradients."""

from torch import Tensor

from lit_credit.functional._rows import scaled_rows

__all__ = ["frobenius_norm", "sample_norms"]


def sample_norms(x: Tensor) -> Tensor:
    r"""Euclidean norm per sample over all features, at any scale.

    .. math:: \|x_n\|_2 = m_n \, \|x_n / m_n\|_2, \quad m_n = \max_d |x_{nd}|

    Args:
        x: (N, ...) one vector a sample; everything after the first dimension is flattened.

    Returns:
        (N,) in the unit of ``x``, float32 or wider; 0 for a zero vector, infinite or NaN for one
        that holds such a value.

    Raises:
        ValueError: if ``x`` has no feature dimension.

    Example:
        >>> import torch
        >>> sample_norms(torch.tensor([[3.0, 4.0], [3e-30, 4e-30]]))
        tensor([5.0000e+00, 5.0000e-30])
    """
    rows, scale = scaled_rows(x, "x")
    return rows.square().sum(1).sqrt() * scale.squeeze(1)


def frobenius_norm(x: Tensor) -> Tensor:
    r"""Euclidean norm over all elements, at any scale.

    .. math:: \|x\|_F = \sqrt{\textstyle\sum_i x_i^2}

    Args:
        x: any shape.

    Returns:
        () in the unit of ``x``, float32 or wider.

    Example:
        >>> import torch
        >>> frobenius_norm(torch.full((2, 2), 3e-30))
        tensor(6.0000e-30)
    """
    return sample_norms(x.reshape(1, -1))[0]
