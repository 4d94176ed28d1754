"""Nets to compare attention with: a free vector for every context, and an MLP."""

from itertools import pairwise

from torch import Tensor, nn

from lit_credit.studies.ngram.distributions import check_length, context_index
from lit_credit.utils.ranges import check_parts, check_range, check_sizes

__all__ = ["ContextMLP", "LowRank"]


class LowRank(nn.Module):
    """Logits ``W_U w_c`` from a free vector w_c for every context c.

    No sequence model of the same width can do better, whatever is between its embedding and its
    head. Both weights start uniform within +-1 / sqrt(width).

    Args:
        vocab_size: symbols V.
        width: features d of a vector.
        block_size: symbols of a context, n - 1.

    Raises:
        ValueError: if ``width`` or ``block_size`` is below 1.

    Example:
        >>> import torch
        >>> net = LowRank(vocab_size=10, width=5)
        >>> net(torch.zeros(3, 2, dtype=torch.long)).shape, net.embed.weight.shape
        (torch.Size([3, 10]), torch.Size([100, 5]))

    Reference:
        Dana, Pydi, Chevaleyre, Memorization in Attention-only Transformers, 2024, arXiv 2411.10115,
        the sequence encoder.
    """

    def __init__(self, vocab_size: int = 10, width: int = 5, block_size: int = 2) -> None:
        super().__init__()
        check_sizes(vocab_size=vocab_size, width=width)
        check_range(1, block_size=block_size)
        check_range(most=64, block_size=block_size)
        check_sizes(**{"vocab_size ** block_size": vocab_size**block_size})
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.embed = nn.Embedding(vocab_size**block_size, width)
        self.head = nn.Linear(width, vocab_size, bias=False)
        for weight in (self.embed.weight, self.head.weight):
            nn.init.uniform_(weight, -(width**-0.5), width**-0.5)

    @property
    def credit_units(self) -> list[str]:
        """The vectors of the contexts."""
        return ["embed"]

    @property
    def readout(self) -> list[str]:
        """The head; it learns from the true gradient."""
        return ["head"]

    @property
    def residual_stream(self) -> list[str]:
        """The submodule whose input is the context's vector."""
        return ["head"]

    def forward(self, contexts: Tensor) -> Tensor:
        """Map contexts (N, n - 1) to logits (N, V).

        Raises:
            ValueError: if contexts are not ``block_size`` long.
        """
        check_length(contexts, self.block_size)
        logits: Tensor = self.head(self.embed(context_index(contexts, self.vocab_size)))
        return logits


class ContextMLP(nn.Module):
    """Logits for the symbol that follows a context, by an MLP in place of attention.

    The symbols' vectors side by side, L hidden layers of ReLU, a projection to d features, and an
    unembedding without bias; all other layers have one. With m hidden units and contexts of n - 1
    symbols the parameters are ``2 V d + ((n - 1) d + 1) m + (L - 1) (m + 1) m + (m + 1) d``.
    Symbols' vectors and unembedding start uniform within +-1 / sqrt(width).

    Args:
        vocab_size: symbols V.
        width: features d of a symbol's vector, and of what the unembedding reads.
        hidden: units m of each hidden layer.
        depth: hidden layers L.
        block_size: symbols of a context, n - 1.

    Raises:
        ValueError: if ``width``, ``hidden`` or ``depth`` is below 1.

    Example:
        >>> import torch
        >>> net = ContextMLP(vocab_size=10, width=5, hidden=20)
        >>> net(torch.zeros(3, 2, dtype=torch.long)).shape
        torch.Size([3, 10])
        >>> sum(p.numel() for p in net.parameters()), net.credit_units
        (425, ['embed', 'layers.0', 'out'])
    """

    def __init__(
        self,
        vocab_size: int = 10,
        width: int = 5,
        hidden: int = 20,
        depth: int = 1,
        block_size: int = 2,
    ) -> None:
        super().__init__()
        check_sizes(vocab_size=vocab_size, width=width, hidden=hidden, block_size=block_size)
        check_parts(depth=depth)
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.embed = nn.Embedding(vocab_size, width)
        sizes = [block_size * width, *[hidden] * depth]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(fan_in, fan_out), nn.ReLU())
            for fan_in, fan_out in pairwise(sizes)
        )
        self.out = nn.Linear(hidden, width)
        self.head = nn.Linear(width, vocab_size, bias=False)
        for weight in (self.embed.weight, self.head.weight):
            nn.init.uniform_(weight, -(width**-0.5), width**-0.5)

    @property
    def credit_units(self) -> list[str]:
        """The submodules that receive one credit signal each, in forward order."""
        return ["embed", *(f"layers.{index}" for index in range(len(self.layers))), "out"]

    @property
    def readout(self) -> list[str]:
        """The unembedding; it learns from the true gradient."""
        return ["head"]

    @property
    def residual_stream(self) -> list[str]:
        """The submodules whose inputs are the hidden activations; nothing is added to them."""
        return [*self.credit_units[1:], "head"]

    def forward(self, contexts: Tensor) -> Tensor:
        """Map contexts (N, n - 1) to logits (N, V).

        Raises:
            ValueError: if contexts are not ``block_size`` long.
        """
        check_length(contexts, self.block_size)
        h = self.embed(contexts).flatten(1)  # (N, (n - 1) d)
        for layer in self.layers:
            h = layer(h)
        logits: Tensor = self.head(self.out(h))
        return logits
