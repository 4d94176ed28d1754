"""The angle between two gradients, sample by sample."""

import torch
from torch import Tensor

from lit_credit.functional._rows import check_same_shape, scaled_rows

__all__ = ["gradient_cosine"]


def gradient_cosine(a: Tensor, b: Tensor) -> Tensor:
    r"""Cosine between two gradients, per sample over all features, at any scale.

    .. math:: \cos_n = \langle a_n, b_n \rangle / (\|a_n\|_2 \|b_n\|_2)

    Of complex gradients, as torch defines them, the product is the real part of
    :math:`\sum a_n \bar b_n`, in which a complex number is two real ones.

    Each vector is first divided by its own largest magnitude, down to a power of two. There is no
    epsilon: the clamp of ``torch.nn.functional.cosine_similarity`` reads 0.25 for two equal
    gradients of norm 5e-9.

    Args:
        a: (N, ...) one vector a sample; everything after the first dimension is flattened.
        b: (N, ...) of the same shape.

    Returns:
        (N,) in [-1, 1], float32 or the wider of the two dtypes; NaN where a vector is zero or not
        finite.

    Raises:
        ValueError: if the shapes differ, or there is no feature dimension.

    Example:
        >>> import torch
        >>> a = torch.tensor([[3.0, 4.0], [5e-39, 0.0], [0.0, 0.0]])
        >>> gradient_cosine(a, torch.tensor([[1.0, 0.0], [5e-39, 0.0], [1.0, 0.0]]))
        tensor([0.6000, 1.0000,    nan])
    """
    check_same_shape(a, b, ("a", "b"))
    dtype = torch.promote_types(a.dtype, b.dtype)
    (u, _), (v, _) = scaled_rows(a.to(dtype), "a"), scaled_rows(b.to(dtype), "b")
    # After scaling, squared norms lie in [1, 4 D]: their product is safe, and for equal vectors
    # sqrt(s * s) is s to the bit. Zero vectors end as 0 / 0, infinite ones as inf / inf.
    dot, squares = (u * v).sum(1), (u * u).sum(1) * (v * v).sum(1)
    return (dot / squares.sqrt()).clamp(-1, 1)
