"""Log-probabilities without what a softmax ignores, and the directions they differ most in."""

from typing import TYPE_CHECKING

from torch import Tensor

from lit_credit.former_names import former_names
from lit_credit.functional._attention import in_float64
from lit_credit.functional._shapes import check_shapes
from lit_credit.functional.leading_directions import leading_directions

__all__ = ["centred_log_probs", "log_prob_directions"]

# Legend: M contexts, N symbols; p_m the distribution after context m; L = log p less its mean over
# symbols.


def centred_log_probs(probs: Tensor) -> Tensor:
    r"""Logarithms of probabilities without what a softmax ignores.

    .. math:: L_{mi} = \log p_{mi} - \tfrac1N \sum_j \log p_{mj}

    Args:
        probs: p, (..., N).

    Returns:
        (..., N) float64; not finite in a row in which a probability is zero.

    Example:
        >>> import torch
        >>> centred_log_probs(torch.tensor([[0.8, 0.2]])).round(decimals=3)
        tensor([[ 0.6930, -0.6930]], dtype=torch.float64)
    """
    logs = in_float64(probs).log()
    return logs - logs.mean(-1, keepdim=True)


def log_prob_directions(probs: Tensor, rank: int) -> Tensor:
    r"""The directions among symbols in which the distributions differ most from the uniform one.

    They are the leading right singular vectors of L, all orthogonal to the all-ones direction. An
    unembedding of as many features does best, to lowest order, if it spans them.

    Args:
        probs: p, (M, N).
        rank: how many, at most min(M, N).

    Returns:
        (N, rank) float64, orthonormal columns; NaN if a probability is zero.

    Raises:
        ValueError: if there are not so many.

    Example:
        >>> import torch
        >>> log_prob_directions(torch.tensor([[0.8, 0.1, 0.1]]), 1).abs().round(decimals=3)
        tensor([[0.8160],
                [0.4080],
                [0.4080]], dtype=torch.float64)
    """
    check_shapes("(M, N)", probs=probs)
    return leading_directions(centred_log_probs(probs).mT, rank)


if not TYPE_CHECKING:
    __getattr__ = former_names("lit_credit.functional.log_prob_theory")
