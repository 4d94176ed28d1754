"""How vectors share fewer dimensions than there are of them."""

import torch
from torch import Tensor

from lit_credit.functional._attention import in_float64

__all__ = ["cosine_matrix", "feature_dimensionality", "mean_squared_cosine", "welch_bound"]

# Legend: N vectors w_i in d dimensions, the rows of W.


def cosine_matrix(vectors: Tensor) -> Tensor:
    r"""Cosines of all pairs of vectors, the Gram matrix of their directions.

    .. math:: C_{ij} = \hat w_i \cdot \hat w_j, \quad \hat w = w / \|w\|

    Args:
        vectors: W, (N, d), real or complex.

    Returns:
        (N, N) float64, or complex128; NaN in the rows and columns of vectors that are zero or not
        finite.

    Raises:
        ValueError: if ``vectors`` is no matrix.

    Example:
        >>> cosine_matrix(torch.tensor([[3.0, 4.0], [0.0, 2.0]])).round(decimals=3)
        tensor([[1.0000, 0.8000],
                [0.8000, 1.0000]], dtype=torch.float64)
    """
    u = _directions(vectors)
    return u @ u.mH


def mean_squared_cosine(vectors: Tensor) -> Tensor:
    r"""Mean squared cosine over all pairs of different vectors: how much they interfere.

    .. math:: \frac{1}{N (N - 1)} \sum_{i \neq j} C_{ij}^2 =
        \frac{\|\hat W^\top \hat W\|_F^2 - N}{N (N - 1)}

    It is never below :func:`welch_bound`.

    Args:
        vectors: W, (N, d).

    Returns:
        () float64, from 0 to 1; NaN if a vector is zero or not finite, or there are not two.

    Raises:
        ValueError: if ``vectors`` is no matrix.

    Example:
        >>> round(mean_squared_cosine(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])).item(), 4)
        0.3333

    Reference:
        Benedetto, Fickus, "Finite normalized tight frames", 2003,
        doi:10.1023/A:1021323312367 (the frame potential).
    """
    u = _directions(vectors)
    n = len(u)
    if n < 2:
        return u.real.new_full((), torch.nan)
    return ((u.mH @ u).abs().square().sum() - n) / (n * (n - 1))


def welch_bound(count: int, dimension: int) -> float:
    r"""The least mean squared cosine that so many vectors can have.

    .. math:: \max\left(0, \frac{N - d}{d (N - 1)}\right)

    Args:
        count: N vectors, at least 2.
        dimension: d, of the space that they are in.

    Raises:
        ValueError: if ``count`` is below 2 or ``dimension`` below 1.

    Example:
        >>> round(welch_bound(10, 5), 4), welch_bound(4, 5)
        (0.1111, 0.0)

    Reference:
        Welch, "Lower bounds on the maximum cross correlation of signals", 1974,
        doi:10.1109/TIT.1974.1055219; of the mean in place of the maximum: Benedetto, Fickus, 2003.
    """
    for name, value, least in (("count", count, 2), ("dimension", dimension, 1)):
        if value < least:
            raise ValueError(f"`{name}` is {value}, expected at least {least}.")
    return max(0.0, (count - dimension) / (dimension * (count - 1)))


def feature_dimensionality(vectors: Tensor) -> Tensor:
    r"""The share of a dimension that each vector has to itself.

    .. math:: D_i = \frac{\|w_i\|^2}{\sum_j (\hat w_i \cdot w_j)^2}

    1 for a vector that is orthogonal to all others, 1/2 for one of a pair of opposites.

    Args:
        vectors: W, (N, d).

    Returns:
        (N,) float64, from 0 to 1; NaN for a vector that is zero, and for all if one is not finite.

    Raises:
        ValueError: if ``vectors`` is no matrix.

    Example:
        >>> feature_dimensionality(torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        tensor([1.0000, 0.5000, 0.5000], dtype=torch.float64)

    Reference:
        Elhage et al., "Toy Models of Superposition", 2022, arXiv:2209.10652, section "The geometry
        of superposition".
    """
    u = _directions(vectors)
    w = in_float64(vectors)
    if w.numel() == 0:
        return w.real.new_full((len(w),), torch.nan)
    w = w / w.abs().max()
    # Not through all pairs: N d^2 in place of N^2 d.
    shared = ((u @ (w.mH @ w)) * u.conj()).sum(1).real
    return w.abs().square().sum(1) / shared


def _directions(vectors: Tensor) -> Tensor:
    """Unit vectors, NaN where there is no direction."""
    if vectors.ndim != 2:
        raise ValueError(
            f"`vectors` has shape {tuple(vectors.shape)}, expected (N, d), one vector a row."
        )
    w = in_float64(vectors)
    if w.shape[1] == 0:
        return w.new_full((len(w), 1), torch.nan)
    # By the largest entry first, so that squares neither overflow nor vanish.
    w = w / w.abs().amax(1, keepdim=True)
    unit: Tensor = w / torch.linalg.vector_norm(w, dim=1, keepdim=True)
    return unit
