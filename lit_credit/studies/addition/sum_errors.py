"""Which digits of sums are wrong, and by how much."""

import torch
from torch import Tensor

from lit_credit.functional._shapes import check_shapes

__all__ = ["column_errors", "digit_differences", "exact_by_run"]

# Legend: N sums of C columns.


def column_errors(wrong: Tensor, carries: Tensor) -> Tensor:
    """The share of wrong digits in each column: of all, without, and with a carry into it.

    Args:
        wrong: bool (N, C).
        carries: which columns receive a carry, bool (N, C).

    Returns:
        float32 (C, 3); NaN where a column never, or always, receives one.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> wrong = torch.tensor([[True], [False], [False]])
        >>> column_errors(wrong, torch.tensor([[True], [False], [True]]))
        tensor([[0.3333, 0.0000, 0.5000]])
    """
    check_shapes("(N, C), (N, C)", wrong=wrong, carries=carries)
    chosen = torch.stack([torch.ones_like(carries), ~carries, carries], 2)
    return (wrong[..., None] & chosen).sum(0) / chosen.sum(0)


def exact_by_run(right: Tensor, runs: Tensor, longest: int) -> Tensor:
    """The share of right sums among those whose longest run of carries is 0, 1, .. ``longest``.

    Args:
        right: which sums are right as a whole, bool (N,).
        runs: the longest run of each, int64 (N,).
        longest: the last length; longer ones are left out.

    Returns:
        float32 (longest + 1,); NaN for a length that no sum has.

    Raises:
        ValueError: if the shapes differ, or ``longest`` is below 0.

    Example:
        >>> exact_by_run(torch.tensor([True, False, True]), torch.tensor([0, 2, 2]), longest=2)
        tensor([1.0000,    nan, 0.5000])
    """
    check_shapes("(N), (N)", right=right, runs=runs)
    if longest < 0:
        raise ValueError(f"`longest` is {longest}, expected at least 0.")
    of_length = runs[:, None] == torch.arange(longest + 1, device=runs.device)  # (N, L)
    return (right[:, None] & of_length).sum(0) / of_length.sum(0)


def digit_differences(predicted: Tensor, target: Tensor, carries: Tensor) -> Tensor:
    """How often a digit is off by 0, 1, .. 9, modulo 10, without and with a carry into its column.

    A carry that was missed is off by 9, one that was made up by 1; an error is one of carries if
    it is either.

    Args:
        predicted: digits, int64 of any shape.
        target: the right ones.
        carries: bool.

    Returns:
        int64 (2, 10).

    Raises:
        ValueError: if the shapes do not broadcast.

    Example:
        >>> predicted, target = torch.tensor([3, 0, 7]), torch.tensor([4, 9, 7])
        >>> digit_differences(predicted, target, torch.tensor([True, False, False])).tolist()
        [[1, 1, 0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]]
    """
    check_shapes("(...), (...), (...)", predicted=predicted, target=target, carries=carries)
    off = (predicted - target) % 10 + 10 * carries
    return torch.bincount(off.flatten(), minlength=20).view(2, 10)
