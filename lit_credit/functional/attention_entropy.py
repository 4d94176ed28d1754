"""How widely each query attends."""

import torch
from torch import Tensor

from lit_credit.functional._attention import attention_rows

__all__ = ["attention_entropy", "effective_keys", "is_softmax", "mean_attention"]


def is_softmax(attention: Tensor, allowed: Tensor | None = None) -> Tensor:
    r"""Whether all queries' attention is a distribution over keys.

    .. math:: A_{ij} \geq 0, \quad \sum_j A_{ij} = 1

    up to the square root of the rounding unit of the tensor's precision, at least of float32's. A
    query without an allowed key, or with zeros only, does not count.

    Args:
        attention: A, (..., T, S).
        allowed: bool, broadcastable to A, True where a query may see a key; None allows all.

    Returns:
        (...) bool, one a head.

    Raises:
        ValueError: if the shapes do not fit, or ``allowed`` is not bool.

    Example:
        >>> import torch
        >>> is_softmax(torch.tensor([[[0.5, 0.5]], [[0.5, 0.4]]]))
        tensor([ True, False])
    """
    a, _ = attention_rows(attention, allowed)
    return ~a.isnan().any(-1).any(-1)


def attention_entropy(attention: Tensor, allowed: Tensor | None = None) -> Tensor:
    r"""Entropy of every query's attention.

    .. math:: H_i = -\sum_j A_{ij} \ln A_{ij}, \quad 0 \ln 0 = 0

    Args:
        attention: A, (..., T, S), rows that sum to 1.
        allowed: bool, broadcastable to A, True where a query may see a key; None allows all.

    Returns:
        (..., T) float64, nats, from 0 (one key) to ln S (all keys alike); NaN for a query without
        an allowed key, and where the row is no softmax.

    Raises:
        ValueError: if the shapes do not fit, or ``allowed`` is not bool.

    Example:
        >>> import torch
        >>> attention_entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
        tensor([0.0000, 0.6931], dtype=torch.float64)
    """
    a, support = attention_rows(attention, allowed)
    entropy = torch.special.entr(a).sum(-1)
    return torch.where(support.any(-1), entropy, torch.nan)


def effective_keys(attention: Tensor, allowed: Tensor | None = None) -> Tensor:
    r"""The number of keys that, attended alike, would have a query's entropy.

    .. math:: n_i = \exp H_i

    Args:
        attention: A, (..., T, S), rows that sum to 1.
        allowed: bool, broadcastable to A, True where a query may see a key; None allows all.

    Returns:
        (..., T) float64, from 1 to S; NaN where the entropy is, see :func:`attention_entropy`.

    Raises:
        ValueError: if the shapes do not fit, or ``allowed`` is not bool.

    Example:
        >>> import torch
        >>> effective_keys(torch.tensor([[0.25, 0.25, 0.25, 0.25]])).round(decimals=6)
        tensor([4.], dtype=torch.float64)
    """
    return attention_entropy(attention, allowed).exp()


def mean_attention(attention: Tensor, allowed: Tensor | None = None) -> Tensor:
    r"""Mean of A over the positions that queries may see.

    .. math:: \bar A = \frac{\sum_{ij} A_{ij}}{\#\{ij : \text{allowed}\}}

    Of a softmax it is the number of queries over that of allowed positions, known from the mask.

    Args:
        attention: A, (..., T, S), rows that sum to 1.
        allowed: bool, broadcastable to A, True where a query may see a key; None allows all.

    Returns:
        (...) float64; NaN where no position is allowed or a row is no softmax.

    Raises:
        ValueError: if the shapes do not fit, or ``allowed`` is not bool.

    Example:
        >>> import torch
        >>> a = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
        >>> mean_attention(a, torch.ones(2, 2).tril().bool()).round(decimals=4)
        tensor(0.6667, dtype=torch.float64)
    """
    a, support = attention_rows(attention, allowed)
    # 0 / 0 where nothing is allowed.
    return a.sum((-2, -1)) / support.sum((-2, -1))
