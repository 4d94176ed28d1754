"""How many directions a matrix uses."""

from typing import NamedTuple

import torch
from torch import Tensor

from lit_credit.functional import _spectra
from lit_credit.functional._attention import in_float64
from lit_credit.functional._linalg import is_finite, singular_values
from lit_credit.functional._rows import magnitude
from lit_credit.functional._shapes import check_shapes

__all__ = ["SpectrumRanks", "effective_rank", "gram_spectrum", "spectrum_ranks", "stable_rank"]


class SpectrumRanks(NamedTuple):
    """Ranks of one spectrum, each (...) float64, from 1 to the number of singular values.

    Attributes:
        effective: exp of the entropy of the normalized singular values.
        stable: squared Frobenius norm over squared spectral norm.
        participation: squared sum of the squares over the sum of the fourth powers.
    """

    effective: Tensor
    stable: Tensor
    participation: Tensor


def effective_rank(matrix: Tensor) -> Tensor:
    r"""The effective rank: exp of the entropy of the normalized singular values.

    .. math:: \exp\left(-\sum_k p_k \log p_k\right), \quad p_k = s_k / \textstyle\sum_j s_j

    1 for a matrix of rank one, r for one with r equal singular values. Small singular values count
    more than in :func:`stable_rank`.

    Args:
        matrix: (..., m, n), with singular values s.

    Returns:
        (...) float64, from 1 to min(m, n); NaN for a matrix that is zero, empty or not finite.

    Raises:
        ValueError: if ``matrix`` has fewer than two dimensions.

    Example:
        >>> import torch
        >>> effective_rank(torch.diag(torch.tensor([3.0, 3.0, 0.0]))).item()
        2.0

    Reference:
        Roy, Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007;
        Garrido, Balestriero, Najman, LeCun, RankMe: Assessing the Downstream Performance of
        Pretrained Self-Supervised Representations by Their Rank, 2022, arXiv 2210.02885.
    """
    check_shapes("(..., m, n)", matrix=matrix)
    return _spectra.entropic(singular_values(in_float64(matrix)))


def stable_rank(matrix: Tensor) -> Tensor:
    r"""The stable rank: squared Frobenius norm over squared spectral norm.

    .. math:: \|A\|_F^2 / \|A\|_2^2 = \sum_k s_k^2 / \max_k s_k^2

    Args:
        matrix: (..., m, n), with singular values s.

    Returns:
        (...) float64, from 1 to min(m, n); NaN for a matrix that is zero, empty or not finite.

    Raises:
        ValueError: if ``matrix`` has fewer than two dimensions.

    Example:
        >>> import torch
        >>> stable_rank(torch.diag(torch.tensor([2.0, 1.0, 1.0]))).item()
        1.5

    Reference:
        Rudelson, Vershynin, Sampling from large matrices: an approach through geometric functional
        analysis, 2007, arXiv math/0503442.
    """
    check_shapes("(..., m, n)", matrix=matrix)
    return _spectra.stable(singular_values(in_float64(matrix)))


def spectrum_ranks(singular_values: Tensor) -> SpectrumRanks:
    """The ranks of matrices whose singular values are known.

    Args:
        singular_values: (..., r), in any order, at least 0.

    Returns:
        The ranks; NaN where all singular values are zero, one is not finite, or there are none.

    Example:
        >>> import torch
        >>> [rank.item() for rank in spectrum_ranks(torch.tensor([2.0, 2.0, 0.0]))]
        [2.0, 2.0, 2.0]
    """
    s = in_float64(singular_values)
    return SpectrumRanks(_spectra.entropic(s), _spectra.stable(s), _spectra.participation(s))


def gram_spectrum(gram: Tensor) -> Tensor:
    r"""Singular values of a matrix of which the Gram matrix is known.

    .. math:: s_k = \sqrt{\lambda_k(A^T A)}

    Eigenvalues below d times the rounding of float64 times the largest are 0: singular values below
    about 1e-7 of the largest are lost.

    Args:
        gram: (..., d, d), A^T A or A A^T.

    Returns:
        (..., d) float64, descending; NaN for a matrix that is not finite.

    Raises:
        ValueError: if ``gram`` is not square.

    Example:
        >>> import torch
        >>> [round(s, 6) for s in gram_spectrum(torch.diag(torch.tensor([4.0, 9.0]))).tolist()]
        [3.0, 2.0]
    """
    check_shapes("(..., d, d)", gram=gram)
    g = in_float64(gram)
    if g.numel() == 0:
        return g.new_empty(g.shape[:-1])
    finite = is_finite(g)
    scale = magnitude(g, (-2, -1))
    eigenvalues = torch.linalg.eigvalsh(torch.where(finite, g / scale, 0.0)).flip(-1)
    rounding = g.shape[-1] * torch.finfo(g.dtype).eps * eigenvalues[..., :1]
    kept = torch.where(eigenvalues > rounding, eigenvalues, 0.0)
    return torch.where(finite.squeeze(-1), kept.sqrt() * scale.squeeze(-1).sqrt(), torch.nan)
