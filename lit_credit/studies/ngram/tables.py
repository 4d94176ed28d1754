"""Distributions of n-grams as tables of conditionals.

Legend: V symbols, n symbols of an n-gram, pi the tables: pi[0] is (V,), pi[1] (V, V), and so on to
pi[n - 1], (V,) * n, each a distribution over its last dimension given the symbols before. A context
is x_1 .. x_{n-1}; its flat index is x_1 V^(n-2) + .. + x_{n-1}.
"""

from collections.abc import Sequence

from torch import Tensor

from lit_credit.inspect.contexts import Contexts

__all__ = ["check_length", "context_index", "joint", "live_contexts"]


def joint(tables: Sequence[Tensor]) -> Tensor:
    """The probability of every n-gram, the product of its conditionals.

    Args:
        tables: pi, or its first tables for the first symbols.

    Returns:
        (V,) * n.

    Example:
        >>> import torch
        >>> joint([torch.tensor([0.25, 0.75]), torch.tensor([[0.0, 1.0], [0.5, 0.5]])])
        tensor([[0.0000, 0.2500],
                [0.3750, 0.3750]])
    """
    product = tables[0]
    for table in tables[1:]:
        product = product.unsqueeze(-1) * table
    return product


def live_contexts(tables: Sequence[Tensor]) -> Contexts:
    """The contexts of positive probability, their prior, and their rows.

    Args:
        tables: pi, at least two.

    Returns:
        T contexts in the order of their flat index: x is int64 (T, n - 1), rows are (T, V).

    Raises:
        ValueError: if there are less than two, or their shapes are not those of conditionals.

    Example:
        >>> import torch
        >>> tables = [torch.tensor([0.0, 1.0]), torch.tensor([[0.5, 0.5], [0.1, 0.9]])]
        >>> live_contexts(tables)
        Contexts(x=tensor([[1]]), prior=tensor([1.]), rows=tensor([[0.1000, 0.9000]]))
    """
    shapes = [tuple(table.shape) for table in tables]
    if len(tables) < 2 or shapes != [shapes[-1][:1] * i for i in range(1, len(tables) + 1)]:
        raise ValueError(
            f"`tables` have shapes {shapes}; expected (V,), (V, V) and so on, at least two, each a "
            "distribution over its last dimension."
        )
    prior = joint(tables[:-1])
    live = prior > 0
    return Contexts(live.nonzero(), prior[live], tables[-1][live])


def context_index(contexts: Tensor, vocab_size: int) -> Tensor:
    """The flat index of each context.

    Args:
        contexts: int64 (..., n - 1).
        vocab_size: symbols V.

    Returns:
        int64 (...).

    Example:
        >>> import torch
        >>> context_index(torch.tensor([[0, 7], [2, 3]]), vocab_size=10)
        tensor([ 7, 23])
    """
    index = contexts[..., 0]
    for place in range(1, contexts.shape[-1]):
        index = index * vocab_size + contexts[..., place]
    return index


def check_length(contexts: Tensor, block_size: int) -> None:
    """Check that contexts (N, n - 1) are as long as a net reads.

    Raises:
        ValueError: if they are not.
    """
    if contexts.shape[-1] != block_size:
        raise ValueError(
            f"`block_size` of the net is {block_size}, but a context has {contexts.shape[-1]} "
            "symbols. Make them equal."
        )
