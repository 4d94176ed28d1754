"""Does a reading head look for what a writing head has copied?"""

import math

import torch
from torch import Tensor

from lit_credit.functional._linalg import frobenius, inner, outer, triangle, unit
from lit_credit.functional._shapes import check_shapes
from lit_credit.functional.factored_matrix import FactoredMatrix

__all__ = ["diagonal_score", "diagonal_score_null_sd"]

# What is smaller than this many rounding units of the factors' product is rounding.
_UNITS = 8


def diagonal_score(qk: FactoredMatrix, ov: FactoredMatrix) -> Tensor:
    r"""By how many standard deviations the diagonal of Z = W_QK W_OV stands out.

    .. math:: z = \frac{\overline{\mathrm{diag} Z} - \bar Z}{\mathrm{std} Z}
        = \frac{t - c}{\sqrt{1 - c^2}}, \quad
        t = \frac{\mathrm{tr} Z}{\|Z\|_F}, \; c = \frac{\sum_{ij} Z_{ij}}{d \|Z\|_F}

    with the standard deviation over all d^2 entries. At most :math:`\sqrt{d - 1}`, for Z = I, and
    about :math:`\sqrt{k}` for a Z of rank k. Between unrelated heads it is 0, give or take
    :func:`diagonal_score_null_sd`, so :math:`\sqrt{d} z` is what compares across widths.

    Args:
        qk: of the reading heads, (..., d, d).
        ov: of the writing heads, (..., d, d). ``diagonal_score(qk[:, None], ov[None])`` is all
            pairs.

    Returns:
        z, (...) of the broadcast leading dimensions; NaN where Z is zero, not finite, constant, or
        only the rounding of factors that cancel.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> eye = FactoredMatrix(torch.eye(10), torch.eye(10))
        >>> round(diagonal_score(eye, eye).item(), 6)
        3.0

    Reference:
        Song, Xu, Zhong, "Out-of-distribution generalization via composition: a lens through
        induction heads in Transformers", 2024, arXiv:2408.09503.
    """
    d = qk.shape[-1]
    check_shapes("(..., d, d), (..., d, d)", qk=qk, ov=ov)
    # Z = L M R^T, its trace that of M N, its norm that of M between the triangles of L and R; of
    # factors of norm 1, which the score does not see.
    first, last = unit(qk.left), unit(ov.right)
    m, n = inner(unit(qk.right), unit(ov.left)), inner(first, last)
    norm = frobenius(outer(inner(triangle(first).mT, m), triangle(last)))
    row, column = first.sum(-2, keepdim=True), last.sum(-2, keepdim=True)
    t = (m * n).sum((-2, -1)) / norm
    c = outer(inner(row.mT, m), column)[..., 0, 0] / norm / d

    resolution = _UNITS * torch.finfo(norm.dtype).eps
    defined = (norm > resolution) & (1 - c.square() > resolution)
    return torch.where(defined, (t - c) / (1 - c.square()).sqrt(), torch.nan)


def diagonal_score_null_sd(d: int) -> float:
    r"""Standard deviation of the diagonal score between unrelated heads, whatever their spectra.

    .. math:: \mathrm{sd}(z) \approx 1 / \sqrt d

    Args:
        d: width of the stream.

    Raises:
        ValueError: if ``d`` is below 1.

    Example:
        >>> diagonal_score_null_sd(64)
        0.125
    """
    if d < 1:
        raise ValueError(f"`d` is {d}, expected at least 1.")
    return 1 / math.sqrt(d)
