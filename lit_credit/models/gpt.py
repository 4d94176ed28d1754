"""A small decoder-only transformer for sequences of symbols."""

import torch
from torch import Tensor, nn

from lit_credit.models.attention import AttentionBackward, AttentionKind, CausalSelfAttention
from lit_credit.models.transformer_block import TransformerBlock
from lit_credit.utils.ranges import check_parts, check_range, check_sizes

__all__ = ["GPT", "GPTEmbedding"]


class GPTEmbedding(nn.Module):
    """The input of the stream: a learned vector for each symbol plus one for each position.

    Args:
        vocab_size: symbols V.
        block_size: positions.
        width: features d of the stream.
    """

    def __init__(self, vocab_size: int, block_size: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(block_size, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map symbols (N, T) to (N, T, d).

        Raises:
            ValueError: if a sequence is longer than ``block_size``.
        """
        length, most = tokens.shape[1], self.position.num_embeddings
        if length > most:
            raise ValueError(
                f"`block_size` of the net is {most}, but a sequence has {length} symbols. "
                "Make the net's `block_size` at least as large as that of the data."
            )
        positions = torch.arange(length, device=tokens.device)
        h: Tensor = self.token(tokens) + self.position(positions)
        return h


class GPT(nn.Module):
    """Logits for the symbol that follows each position.

    Blocks are pre-norm, positions are learned, and the head does not share the embedding's weight.
    Weights have torch's default initialisation. GPT-2's much smaller weights suit backpropagation,
    but not feedback alignment, which needs weights of the size of its feedback (with GPT-2's, the
    validation loss after 500 steps is 3.3 instead of 2.4).

    Args:
        vocab_size: symbols V.
        block_size: positions of the longest sequence.
        depth: blocks L.
        heads: attention heads of a block.
        width: features d of the stream.
        dropout: probability of dropping an entry of the embedding or of a sublayer's output.
        attention: ``softmax`` or ``sigmoid`` weights.
        attention_backward: ``full``, ``diagonal`` or ``ste``: backward pass of the attention
            weights; see :class:`lit_credit.models.AttentionWeights`.

    Example:
        >>> net = GPT(vocab_size=65, width=32)
        >>> net(torch.zeros(2, 16, dtype=torch.long)).shape
        torch.Size([2, 16, 65])
        >>> net.credit_units
        ['embed', 'blocks.0', 'blocks.1', 'blocks.2', 'blocks.3']

    Reference:
        Radford et al., Language Models are Unsupervised Multitask Learners, 2019 (GPT-2).
    """

    def __init__(
        self,
        vocab_size: int = 65,
        block_size: int = 64,
        depth: int = 4,
        heads: int = 4,
        width: int = 128,
        dropout: float = 0.0,
        attention: AttentionKind = "softmax",
        attention_backward: AttentionBackward = "full",
    ) -> None:
        super().__init__()
        check_sizes(vocab_size=vocab_size, block_size=block_size, width=width)
        check_parts(0, depth=depth)
        check_range(0, 1, dropout=dropout)
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.embed = GPTEmbedding(vocab_size, block_size, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                width,
                CausalSelfAttention(width, heads, attention, attention_backward),
                4 * width,
                nn.GELU(),
                dropout,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab_size)

    @property
    def credit_units(self) -> list[str]:
        """The submodules that receive one credit signal each, in forward order."""
        return ["embed", *(f"blocks.{index}" for index in range(len(self.blocks)))]

    @property
    def readout(self) -> list[str]:
        """The submodules after the last unit; they learn from the true gradient."""
        return ["norm", "head"]

    @property
    def residual_stream(self) -> list[str]:
        """The submodules whose inputs are h_0 .. h_L."""
        return [*(f"blocks.{index}" for index in range(len(self.blocks))), "norm"]

    def forward(self, tokens: Tensor) -> Tensor:
        """Map symbols (N, T) to logits (N, T, V).

        Raises:
            ValueError: if a sequence is longer than ``block_size``.
        """
        h = self.dropout(self.embed(tokens))  # (N, T, d)
        for block in self.blocks:
            h = block(h)
        logits: Tensor = self.head(self.norm(h))  # (N, T, V)
        return logits
