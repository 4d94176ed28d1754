"""How far apart two subspaces are, in one number."""

import math

import torch
from torch import Tensor

from lit_credit.functional._linalg import frobenius, inner
from lit_credit.functional._rows import in_float32
from lit_credit.functional._shapes import check_shapes

__all__ = ["projector_distance", "projector_distance_null"]


def projector_distance(a: Tensor, b: Tensor) -> Tensor:
    r"""Frobenius distance of the projectors on two subspaces.

    .. math:: \|A A^\top - B B^\top\|_F = \sqrt{\|A - B B^\top A\|_F^2 + \|B - A A^\top B\|_F^2}

    and the right side keeps its digits however small the distance. Of two subspaces of one
    dimension it is :math:`\sqrt{2 \sum_i \sin^2 \theta_i}` of their :func:`principal_angles`.

    Args:
        a: A, (..., n, r), orthonormal columns; those of any matrix W are
            ``leading_directions(W, r)``, and of what a softmax sees of unembedding vectors
            ``leading_directions(W - W.mean(0), r)``: adding one number to all logits is nothing.
        b: B, (..., n, s), orthonormal columns.

    Returns:
        (...), from 0 to sqrt(r + s); NaN where a direction is NaN.

    Raises:
        ValueError: if the subspaces are not of one space.

    Example:
        >>> eye = torch.eye(4)
        >>> projector_distance(eye[:, :2], eye[:, 1:3])
        tensor(1.4142)

    Reference:
        Golub, Van Loan, "Matrix Computations", 4th edition, 2013, section 2.5.3.
    """
    check_shapes("(..., n, r), (..., n, s)", a=a, b=b)
    a, b = in_float32(a, b)
    outside = frobenius(a - b @ inner(b, a)), frobenius(b - a @ inner(a, b))
    return torch.hypot(*outside)


def projector_distance_null(dimension: int, rank: int, other_rank: int | None = None) -> float:
    r"""Root mean square distance of two random subspaces.

    .. math:: \sqrt{r + s - 2 r s / n}, \quad \text{of one dimension } \sqrt{2 r (1 - r / n)}

    Args:
        dimension: n, of the space; N - 1 if it is that of N logits without the all-ones direction.
        rank: r, dimension of one subspace.
        other_rank: s, of the other; None takes r.

    Raises:
        ValueError: if a rank is not from 1 to ``dimension``.

    Example:
        >>> round(projector_distance_null(10, 5), 3), round(projector_distance_null(9, 5), 3)
        (2.236, 2.108)
    """
    other_rank = rank if other_rank is None else other_rank
    for name, value in (("rank", rank), ("other_rank", other_rank)):
        if not 1 <= value <= dimension:
            raise ValueError(
                f"`{name}` is {value}, expected from 1 to `dimension`, which is {dimension}."
            )
    return math.sqrt(max(rank + other_rank - 2 * rank * other_rank / dimension, 0.0))
