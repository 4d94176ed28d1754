"""How many singular values stand out of noise whose law is not known."""

import torch
from torch import Tensor

from lit_credit.functional._rows import in_float32
from lit_credit.functional._shapes import check_shapes

__all__ = ["screenot_rank"]


def screenot_rank(singular_values: Tensor, shape: tuple[int, int], max_rank: int) -> Tensor:
    r"""Number of singular values above ScreeNOT's optimal hard threshold.

    The k leading values are taken for signal, and replaced by a tail that continues the others
    (:math:`z_{1 \ldots k}` above :math:`z_{k+1 \ldots p}`). A value y is above the threshold if

    .. math:: b \left( \frac1a + \frac{\gamma}{1 + \gamma (a - 1)} \right) < 1, \quad
        a = \frac1p \sum_i \frac{1}{1 - u_i}, \;
        b = \frac1p \sum_i \frac{u_i}{(1 - u_i)^2}, \; u_i = z_i^2 / y^2

    which is the reference's :math:`\Psi(y) > -4` written out. The left side falls with y, so the
    values themselves are asked, and the threshold, which lies between two of them, is not needed.

    Args:
        singular_values: (..., r), descending. Where r < p, the rest are zeros.
        shape: (n, p) of the matrix, in any order; :math:`\gamma = p / n \leq 1`.
        max_rank: k, a loose upper bound of the rank: one that is too small takes signal for the
            tail of the noise, and finds less. The tail is continued from the values k + 1 to
            2 k + 1, so k is clamped to the largest for which 2 k + 1 < r.

    Returns:
        (...) int64, from 0 to k; 0 for a matrix that is zero or not finite.

    Raises:
        ValueError: if ``max_rank`` is below 1, there are fewer than four singular values, or more
            than the shape allows.

    Example:
        >>> screenot_rank(torch.tensor([9.0, 5.0, 1.2, 1.0, 0.8, 0.6, 0.4, 0.2]), (8, 8), 3)
        tensor(2)

    Reference:
        Donoho, Gavish, Romanov, "ScreeNOT: Exact MSE-optimal singular value thresholding in
        correlated noise", 2023, arXiv:2009.12297, with its "imputation" of the tail.
    """
    check_shapes("(..., r)", singular_values=singular_values)
    (y,) = in_float32(singular_values)
    p, n = sorted(shape)
    given = y.shape[-1]
    if max_rank < 1 or not 4 <= given <= p:
        raise ValueError(
            f"`max_rank` is {max_rank} and there are {given} singular values of a matrix of shape "
            f"{tuple(shape)}; expected a rank from 1, and from 4 to {p} values."
        )
    k = min(max_rank, (given - 2) // 2)
    rise = (1 - (torch.arange(k).to(y) / k) ** (2 / 3)) / (2 ** (2 / 3) - 1)
    edge, behind = y[..., k : k + 1], y[..., 2 * k : 2 * k + 1]
    noise = torch.cat([edge + rise * (edge - behind), y[..., k:]], -1)
    # Only the k leading values can be above the tail, and below it no threshold can be.
    u = (noise[..., None, :] / y[..., :k, None]).square()  # (..., k, r)
    v = u / (1 - u)
    a = 1 + v.sum(-1) / p  # the zeros beyond r are in this 1
    b = (v + v.square()).sum(-1) / p
    gamma = p / n
    above = (y[..., :k] > noise[..., :1]) & (b * (1 / a + gamma / (1 + gamma * (a - 1))) < 1)
    return above.sum(-1)
