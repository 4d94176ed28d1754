"""How many singular values of a matrix count."""

from torch import Tensor

from lit_credit.functional._attention import in_float64
from lit_credit.functional._linalg import singular_values
from lit_credit.functional._shapes import check_shapes
from lit_credit.functional._spectra import participation

__all__ = ["participation_ratio"]


def participation_ratio(matrix: Tensor) -> Tensor:
    r"""An effective rank that no threshold enters.

    .. math:: \frac{\left(\sum_k s_k^2\right)^2}{\sum_k s_k^4}

    1 for a matrix of rank one, r for one with r equal singular values.

    Args:
        matrix: (..., m, n), with singular values s.

    Returns:
        (...) float64, from 1 to min(m, n); NaN for a matrix that is zero, empty or not finite.

    Raises:
        ValueError: if ``matrix`` is no matrix.

    Example:
        >>> import torch
        >>> participation_ratio(torch.diag(torch.tensor([2.0, 2.0, 0.0]))).item()
        2.0

    Reference:
        Gao et al., "A theory of multineuronal dimensionality, dynamics and measurement", 2017,
        bioRxiv 214262, of the eigenvalues s^2 of a covariance.
    """
    check_shapes("(..., m, n)", matrix=matrix)
    return participation(singular_values(in_float64(matrix)))
