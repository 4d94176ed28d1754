"""A stream vector as a mixture of unembedding vectors."""

import torch
from torch import Tensor

from lit_credit.functional._rows import in_float32

__all__ = ["min_norm_coordinates"]


def min_norm_coordinates(stream: Tensor, unembedding: Tensor) -> Tensor:
    r"""The shortest coordinates of a vector in the unembedding vectors of all symbols.

    .. math:: \alpha = W_U (W_U^\top W_U)^{-1} h, \qquad W_U h = (W_U W_U^\top) \, \alpha

    so that ``unembedding @ unembedding.mT * alpha`` shows, row by row, what each symbol's direction
    adds to a logit.

    Args:
        stream: h, (..., d), such as what a head adds.
        unembedding: W_U, (N, d).

    Returns:
        (..., N): coordinates with :math:`W_U^\top \alpha = h`, or as near to it as can be if W_U
        does not span all of d; NaN if it is not finite.

    Raises:
        ValueError: if the numbers of features differ.

    Example:
        >>> w = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> alpha = min_norm_coordinates(torch.tensor([3.0, 0.0]), w)
        >>> alpha.round(decimals=4)
        tensor([ 2., -1.,  1.])
    """
    if unembedding.ndim != 2 or stream.shape[-1:] != unembedding.shape[1:]:
        raise ValueError(
            f"`stream` and `unembedding` have shapes {tuple(stream.shape)} and "
            f"{tuple(unembedding.shape)}, expected (..., d) and (N, d)."
        )
    h, u = in_float32(stream, unembedding)
    if not u.isfinite().all():  # LAPACK would raise
        return h.new_full((*h.shape[:-1], len(u)), torch.nan)
    inverse: Tensor = torch.linalg.pinv(u)  # (d, N)
    return h @ inverse
