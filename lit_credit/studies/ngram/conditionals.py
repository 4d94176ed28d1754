"""What can be known of the next symbol: entropy, and two limits of a net's loss and accuracy."""

import math

import torch
from torch import Tensor

from lit_credit.functional._rows import in_float32

__all__ = ["conditional_entropy", "max_accuracy", "random_baseline"]


def conditional_entropy(prior: Tensor, rows: Tensor) -> Tensor:
    r"""Entropy of what follows, averaged over contexts: the least cross-entropy that is possible.

    .. math:: H = -\sum_c p(c) \sum_x \pi(x | c) \log \pi(x | c)

    Args:
        prior: p, (T,), sums to one.
        rows: pi, (T, V), each row sums to one.

    Returns:
        A scalar in nats.

    Raises:
        ValueError: if the shapes do not belong together.

    Example:
        >>> conditional_entropy(torch.tensor([0.5, 0.5]), torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
        tensor(0.3466)
    """
    prior, rows = _checked(prior, rows)
    entropies: Tensor = torch.special.entr(rows).sum(-1)
    return prior @ entropies


def random_baseline(prior: Tensor, rows: Tensor) -> Tensor:
    """The divergence of a net that answers uniformly, ``log V - H``.

    Args:
        prior: (T,), sums to one.
        rows: (T, V), each row sums to one.

    Returns:
        A scalar in nats.

    Raises:
        ValueError: if the shapes do not belong together.

    Example:
        >>> random_baseline(torch.tensor([0.5, 0.5]), torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
        tensor(0.3466)
    """
    entropy = conditional_entropy(prior, rows)
    return math.log(rows.shape[-1]) - entropy


def max_accuracy(prior: Tensor, rows: Tensor) -> Tensor:
    """The accuracy of whoever knows the rows: the mean of their largest entries.

    Args:
        prior: (T,), sums to one.
        rows: (T, V), each row sums to one.

    Returns:
        A scalar, 1 / V to 1.

    Raises:
        ValueError: if the shapes do not belong together.

    Example:
        >>> max_accuracy(torch.tensor([0.5, 0.5]), torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
        tensor(0.7500)
    """
    prior, rows = _checked(prior, rows)
    return prior @ rows.amax(-1)


def _checked(prior: Tensor, rows: Tensor) -> list[Tensor]:
    if rows.ndim != 2 or prior.shape != rows.shape[:1] or not rows.numel():
        raise ValueError(
            f"`prior` has shape {tuple(prior.shape)} and `rows` {tuple(rows.shape)}; expected "
            "(contexts,) and (contexts, symbols), at least one of each."
        )
    return in_float32(prior, rows)
