"""Distributions of n-grams: tables of conditionals, and how to draw them.

Legend: V symbols, n symbols of an n-gram, pi the tables: pi[0] is (V,), pi[1] (V, V), and so on to
pi[n - 1], (V,) * n, each a distribution over its last dimension given the symbols before. A context
is x_1 .. x_{n-1}; its flat index is x_1 V^(n-2) + .. + x_{n-1}. Some have d directions.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from lit_credit.inspect.contexts import Contexts
from lit_credit.utils.ranges import check_range, check_sizes

__all__ = [
    "AlmostRankD",
    "LastPosition",
    "NGramDistribution",
    "PowerUnif",
    "RankD",
    "check_length",
    "context_index",
    "joint",
    "live_contexts",
]


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


class NGramDistribution(ABC):
    """How the tables of conditionals are drawn.

    Args:
        vocab_size: symbols V.
        order: symbols n of an n-gram, the predicted one included.

    Raises:
        ValueError: if one of them is below 2.
    """

    def __init__(self, vocab_size: int, order: int) -> None:
        check_range(2, vocab_size=vocab_size, order=order)
        check_range(most=64, order=order)
        check_sizes(**{"vocab_size ** order": vocab_size**order})
        self.vocab_size = vocab_size
        self.order = order

    @abstractmethod
    def tables(self, generator: Generator) -> list[Tensor]:
        """Draw pi: n tables (V,), (V, V), .., float64, each a distribution over its last dimension.

        Args:
            generator: the only source of randomness.
        """

    def with_uniform_prior(self, rows: Tensor) -> list[Tensor]:
        """The tables where all contexts occur alike.

        Args:
            rows: (V^(n-1), V), in the order of the contexts' flat index.
        """
        shapes = [(self.vocab_size,) * level for level in range(1, self.order)]
        uniform = [torch.full(shape, 1 / self.vocab_size, dtype=torch.float64) for shape in shapes]
        return [*uniform, rows.reshape((self.vocab_size,) * self.order)]


class PowerUnif(NGramDistribution):
    r"""Every context is followed by some of the symbols, with geometric probabilities.

    At level i = 0 .. n - 1 the r-th of ``num_tokens[i]`` symbols, r = 0, 1, .., has a probability
    proportional to :math:`\alpha_i^r`, and the others have none; which symbols these are is drawn
    for each of the V^i contexts by itself. ``num_tokens`` that end in 1 make a lookup table.

    Args:
        alphas: one number above 0 a level.
        num_tokens: symbols that follow a context, one number a level.
        vocab_size: symbols V.

    Raises:
        ValueError: if the two lists differ in length, or a number is out of range.

    Example:
        >>> lookup = PowerUnif(alphas=[1.0, 1.0], num_tokens=[4, 1], vocab_size=4)
        >>> first, second = lookup.tables(torch.Generator().manual_seed(0))
        >>> first.tolist(), second.sort(-1).values[0].tolist()
        ([0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.0, 1.0])

    Reference:
        Dana, Pydi, Chevaleyre, Memorization in Attention-only Transformers, 2024, arXiv 2411.10115,
        whose lookup tables these generalize.
    """

    def __init__(
        self,
        alphas: Sequence[float] = (1.0, 1.0, 1.0),
        num_tokens: Sequence[int] = (10, 10, 1),
        vocab_size: int = 10,
    ) -> None:
        if len(alphas) != len(num_tokens):
            raise ValueError(
                f"`alphas` is {list(alphas)} and `num_tokens` {list(num_tokens)}, expected as many "
                "of both, one a symbol of the n-gram."
            )
        check_range(above=0, alphas=alphas)
        super().__init__(vocab_size, len(alphas))
        if not all(1 <= count <= vocab_size for count in num_tokens):
            raise ValueError(
                f"`num_tokens` is {list(num_tokens)}, expected 1 to `vocab_size`={vocab_size}."
            )
        self.alphas = list(alphas)
        self.num_tokens = list(num_tokens)

    def tables(self, generator: Generator) -> list[Tensor]:
        """Draw which symbols follow; see :class:`NGramDistribution`."""
        size, found = self.vocab_size, []
        for level, (alpha, count) in enumerate(zip(self.alphas, self.num_tokens, strict=True)):
            rank = torch.arange(size)
            powers = torch.tensor(alpha, dtype=torch.float64) ** rank
            weights = torch.where(rank < count, powers, 0.0)
            # The order of uniform numbers is a uniform permutation.
            shape = (size,) * (level + 1)
            order = torch.rand(shape, generator=generator, dtype=torch.float64).argsort(-1)
            found.append((weights / weights.sum())[order])
        return found


class LastPosition(NGramDistribution):
    r"""Every context is followed by a symbol of its own most of the time, by others else.

    All contexts occur alike. Each draws one symbol, i = 0 .. V - 1 with a probability proportional
    to :math:`(1 - i / V)^k`, and gives it ``peak``; all others share the rest.

    Args:
        vocab_size: symbols V.
        order: symbols n of an n-gram, the predicted one included.
        skew: k; 0 draws all symbols alike.
        peak: probability of a context's symbol.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> tables = LastPosition(vocab_size=5, order=2).tables(torch.Generator().manual_seed(0))
        >>> [round(p, 4) for p in tables[1].sort(-1).values[0].tolist()]
        [0.0125, 0.0125, 0.0125, 0.0125, 0.95]
    """

    def __init__(
        self, vocab_size: int = 10, order: int = 3, skew: float = 0.0, peak: float = 0.95
    ) -> None:
        super().__init__(vocab_size, order)
        check_range(0, 1, peak=peak)
        check_range(skew=skew)
        self.skew = skew
        self.peak = peak

    def tables(self, generator: Generator) -> list[Tensor]:
        """Draw each context's symbol; see :class:`NGramDistribution`."""
        size, count = self.vocab_size, self.vocab_size ** (self.order - 1)
        cdf = (1 - torch.arange(size, dtype=torch.float64) / size).pow(self.skew).cumsum(0)
        u = torch.rand(count, generator=generator, dtype=torch.float64) * cdf[-1]
        symbols = torch.searchsorted(cdf, u, right=True).clamp(max=size - 1)
        rows = torch.full((count, size), (1 - self.peak) / (size - 1), dtype=torch.float64)
        return self.with_uniform_prior(rows.scatter(1, symbols[:, None], self.peak))


class RankD(NGramDistribution):
    r"""Log-probabilities of rank d, but for the all-ones direction that a softmax ignores.

    All contexts occur alike. The logits of a context are :math:`f W (z_i g^i)_{i < d}`, with z from
    N(0, I), g the ``importance`` and f the ``flat``.

    Args:
        vocab_size: symbols V.
        order: symbols n of an n-gram, the predicted one included.
        rank: directions d.
        axis_aligned: W is the first d columns of the identity; else it is drawn from N(0, 1).
        importance: g, of a direction relative to the one before.
        flat: f, the scale of the logits.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> tables = RankD(vocab_size=4, rank=2, axis_aligned=True).tables(generator)
        >>> bool((tables[-1][..., 2] == tables[-1][..., 3]).all())
        True
    """

    def __init__(
        self,
        vocab_size: int = 10,
        order: int = 3,
        rank: int = 5,
        axis_aligned: bool = False,
        importance: float = 1.0,
        flat: float = 0.1,
    ) -> None:
        super().__init__(vocab_size, order)
        _check_rank(rank, vocab_size)
        self.rank = rank
        self.axis_aligned = axis_aligned
        check_range(importance=importance, flat=flat)
        self.importance = importance
        self.flat = flat

    def directions(self, generator: Generator) -> Tensor:
        """W, float64 (V, d), as :meth:`tables` draws it from a generator of the same state."""
        size = self.vocab_size, self.rank
        if self.axis_aligned:
            return torch.eye(*size, dtype=torch.float64)
        return torch.randn(size, generator=generator, dtype=torch.float64)

    def tables(self, generator: Generator) -> list[Tensor]:
        """Draw W, then z; see :class:`NGramDistribution`."""
        directions = self.directions(generator)
        size = self.vocab_size ** (self.order - 1), self.rank
        z = torch.randn(size, generator=generator, dtype=torch.float64)
        scale = self.importance ** torch.arange(self.rank, dtype=torch.float64)
        return self.with_uniform_prior((self.flat * (z * scale) @ directions.T).softmax(-1))


class AlmostRankD(NGramDistribution):
    r"""Log-probabilities with d large singular values, and the others small.

    All contexts occur alike. The logits are :math:`U S V^\top` of a matrix of normal numbers, (V^(n
    - 1), V), with its singular values replaced.

    Args:
        vocab_size: symbols V.
        order: symbols n of an n-gram, the predicted one included.
        rank: large singular values d.
        axis_aligned: the right singular vectors are the identity.
        large: the first d singular values.
        small: the others.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> tables = AlmostRankD(vocab_size=4, rank=2).tables(torch.Generator().manual_seed(0))
        >>> round(tables[-1].sum().item(), 6)
        16.0
    """

    def __init__(
        self,
        vocab_size: int = 10,
        order: int = 3,
        rank: int = 5,
        axis_aligned: bool = False,
        large: float = 20.0,
        small: float = 2.0,
    ) -> None:
        super().__init__(vocab_size, order)
        _check_rank(rank, vocab_size)
        self.rank = rank
        self.axis_aligned = axis_aligned
        check_range(large=large, small=small)
        self.large = large
        self.small = small

    def tables(self, generator: Generator) -> list[Tensor]:
        """Draw the singular vectors; see :class:`NGramDistribution`."""
        size = self.vocab_size
        noise = torch.randn(
            size ** (self.order - 1), size, generator=generator, dtype=torch.float64
        )
        left, _, right = torch.linalg.svd(noise, full_matrices=False)
        values = torch.full((size,), self.small, dtype=torch.float64)
        values[: self.rank] = self.large
        logits = left * values if self.axis_aligned else left * values @ right
        return self.with_uniform_prior(logits.softmax(-1))


def _check_rank(rank: int, vocab_size: int) -> None:
    if not 1 <= rank <= vocab_size:
        raise ValueError(f"`rank` is {rank}, expected 1 to `vocab_size`={vocab_size}.")
