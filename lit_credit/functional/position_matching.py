"""Do heads read tokens, or what all tokens share?"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_credit.functional._linalg import check_ranks
from lit_credit.functional._rows import in_float32, scaled_rows
from lit_credit.functional._shapes import check_shapes
from lit_credit.functional.leading_directions import leading_directions

__all__ = ["PositionMatching", "position_matching"]


class PositionMatching(NamedTuple):
    """Lengths of unit vectors after projection, (..., ranks), from 0 (unread) to 1 (all read)."""

    token: Tensor
    """Of what sets a token apart, mean over tokens."""
    token_sd: Tensor
    """Its standard deviation over tokens."""
    mean: Tensor
    """Of the mean embedding, which tells no token from another."""


def position_matching(embedding: Tensor, weight: Tensor, ranks: Sequence[int]) -> PositionMatching:
    r"""How much of the embedding lies in the r directions that a head reads most.

    .. math:: \text{token} = \operatorname{mean}_i \frac{\|(e_i - \bar e) U_r\|}{\|e_i - \bar e\|},
        \quad \text{mean} = \frac{\|\bar e U_r\|}{\|\bar e\|}

    with U the left singular vectors of W. A head that goes by position reads little of either;
    random directions read about :math:`\sqrt{r / d}`. The published code agrees: its W, of a
    ``Linear``, is the transpose of this one, and it takes the right singular vectors.

    Args:
        embedding: E, (V, d).
        weight: W_Q or W_K, (..., d, d_head), q = x W_Q.
        ranks: each r, at most d_head.

    Returns:
        Three tensors (..., ranks); NaN where a weight is zero or not finite, where a token's
        embedding is the mean of all, and where the mean is zero.

    Raises:
        ValueError: if the widths differ, or a rank is not from 1 to d_head.

    Example:
        >>> e = torch.tensor([[1.0, 1.0, 0.0], [-1.0, 1.0, 0.0]])
        >>> read = position_matching(e, torch.diag(torch.tensor([3.0, 2.0, 1.0])), ranks=[1, 2])
        >>> read.token, read.mean
        (tensor([1., 1.]), tensor([0., 1.]))

    Reference:
        Song, Xu, Zhong, "Out-of-distribution generalization via composition: a lens through
        induction heads in Transformers", 2024, arXiv:2408.09503.
    """
    check_shapes("(V, d), (..., d, d_head)", embedding=embedding, weight=weight)
    check_ranks(ranks, min(weight.shape[-2:]), "weight")
    e, weight = in_float32(embedding, weight)
    centre = e.mean(0, keepdim=True)
    directions = leading_directions(weight, max(ranks))
    read = _projected(torch.cat([e - centre, centre]), directions, ranks)
    token = read[..., :-1, :]
    mean = token.mean(-2)
    # Of no matrix there is no deviation, and `std` warns.
    deviation = token.std(-2, correction=0) if mean.numel() else mean.clone()
    return PositionMatching(mean, deviation, read[..., -1, :])


def _projected(rows: Tensor, directions: Tensor, ranks: Sequence[int]) -> Tensor:
    """Length of each row (V, d), normed, in the first r of the directions, (..., V, ranks)."""
    rows, _ = scaled_rows(rows, "embedding")
    along: Tensor = rows / rows.norm(dim=-1, keepdim=True) @ directions
    r = torch.tensor(ranks, device=rows.device)
    squares = along.square().cumsum(-1)[..., r - 1]
    # Rounding may carry a length of 1 beyond it.
    return squares.sqrt().clamp(max=1)
