"""The directions of the stream that a weight reads or writes most."""

from torch import Tensor

from lit_credit.functional._linalg import svd, triangle

__all__ = ["leading_directions"]


def leading_directions(matrix: Tensor, rank: int) -> Tensor:
    r"""The orthonormal directions in which a matrix writes most: its leading left singular vectors.

    Of a weight (d_model, d_head) these are the directions of the stream that it reads or writes; of
    an embedding that is transposed, (d_model, V), those in which tokens differ.

    Args:
        matrix: (..., m, n).
        rank: r, how many, at most min(m, n).

    Returns:
        (..., m, r) in the order of the singular values; NaN where the matrix is zero or not finite.

    Raises:
        ValueError: if the matrix has fewer than ``rank`` directions, or ``rank`` is below 1.

    Example:
        >>> import torch
        >>> leading_directions(torch.diag(torch.tensor([1.0, 3.0, 2.0])), 2).abs()
        tensor([[0., 0.],
                [1., 0.],
                [0., 1.]])
    """
    if not 1 <= rank <= min(matrix.shape[-2:]):
        raise ValueError(
            f"`rank` is {rank}, expected a number from 1 to {min(matrix.shape[-2:])}, as many as "
            f"`matrix` {tuple(matrix.shape)} has directions."
        )
    matrix = matrix.detach()
    if matrix.shape[-2] < matrix.shape[-1]:
        # The left vectors of A = R^T Q^T are those of R^T, and a long embedding has a short R.
        matrix = triangle(matrix.mT).mT
    return svd(matrix).u[..., :rank]
