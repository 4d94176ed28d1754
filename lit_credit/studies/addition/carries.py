"""The carries of a sum."""

import torch
from torch import Tensor

from lit_credit.studies.addition.layout import AdditionLayout

__all__ = ["carries_in", "longest_run"]


def carries_in(tokens: Tensor, layout: AdditionLayout) -> Tensor:
    """Which columns of a sum receive a carry: c_i = (z_i - x_i - y_i) mod 10.

    Args:
        tokens: sums, int64 (N, T); see :class:`lit_credit.studies.addition.layout.AdditionLayout`.
        layout: of the sums.

    Returns:
        bool (N, digits + 1), one a column of Z; the first is False.

    Example:
        >>> layout = AdditionLayout(digits=2)
        >>> carries_in(layout.encode(torch.tensor([95]), torch.tensor([7])), layout)
        tensor([[False,  True,  True]])
    """
    columns = tokens[:, layout.z].clone()
    columns[:, :-1] -= tokens[:, layout.x] + tokens[:, layout.y]
    return columns % 10 == 1


def longest_run(carries: Tensor) -> Tensor:
    """The length of the longest run of True in each row (N, C); int64 (N,).

    Example:
        >>> longest_run(torch.tensor([[True, False, True, True], [False] * 4]))
        tensor([2, 0])
    """
    run = longest = torch.zeros(len(carries), dtype=torch.long, device=carries.device)
    for column in carries.T:
        run = (run + 1) * column
        longest = torch.maximum(longest, run)
    return longest
