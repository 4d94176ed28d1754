"""A decoder-only transformer with rotary positions only."""

from torch import Tensor, nn

from lit_credit.models.attention import CausalSelfAttention
from lit_credit.models.transformer_block import TransformerBlock
from lit_credit.utils.ranges import check_parts, check_range, check_sizes

__all__ = ["RotaryTransformer"]


class RotaryTransformer(nn.Module):
    """Logits for the symbol that follows each position, from attention with rotary positions.

    The stream starts as the symbol's embedding, initialised from N(0, 1), without a position.
    Blocks are pre-norm. The head reads the stream without a norm; it has its own weight and a bias.

    Args:
        vocab_size: symbols V.
        width: features d of the stream.
        depth: blocks L.
        heads: attention heads of a block.
        mlp: units of the ReLU MLP in each block; None leaves the MLPs out.
        dropout: probability of dropping an entry of a sublayer's output.
        rope_theta: base of the rotary frequencies.
        norm_affine: give the norms a trainable gain and bias.

    Raises:
        ValueError: if ``heads`` does not divide ``width``, or ``width / heads`` is odd.

    Example:
        >>> import torch
        >>> net = RotaryTransformer(vocab_size=64, width=32)
        >>> net(torch.zeros(2, 16, dtype=torch.long)).shape
        torch.Size([2, 16, 64])
        >>> net.credit_units
        ['embed', 'blocks.0', 'blocks.1']

    Reference:
        Song, Xu, Zhong, Out-of-distribution generalization via composition: a lens through
        induction heads in Transformers, 2024, arXiv 2408.09503.
    """

    def __init__(
        self,
        vocab_size: int = 64,
        width: int = 64,
        depth: int = 2,
        heads: int = 1,
        mlp: int | None = None,
        dropout: float = 0.1,
        rope_theta: float = 10_000.0,
        norm_affine: bool = True,
    ) -> None:
        super().__init__()
        check_sizes(vocab_size=vocab_size, width=width, mlp=mlp)
        check_parts(0, depth=depth)
        check_range(0, 1, dropout=dropout)
        self.vocab_size = vocab_size
        self.embed = nn.Embedding(vocab_size, width)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                width,
                CausalSelfAttention(width, heads, rope_theta=rope_theta),
                mlp,
                nn.ReLU(),
                dropout,
                norm_affine,
            )
            for _ in range(depth)
        )
        self.head = nn.Linear(width, vocab_size)

    @property
    def credit_units(self) -> list[str]:
        """The submodules that receive one credit signal each, in forward order."""
        return ["embed", *(f"blocks.{index}" for index in range(len(self.blocks)))]

    @property
    def readout(self) -> list[str]:
        """The submodule after the last unit, which learns from the true gradient."""
        return ["head"]

    @property
    def residual_stream(self) -> list[str]:
        """The submodules whose inputs are h_0 .. h_L."""
        return [*(f"blocks.{index}" for index in range(len(self.blocks))), "head"]

    def forward(self, tokens: Tensor) -> Tensor:
        """Map symbols (N, T) to logits (N, T, V)."""
        h = self.embed(tokens)  # (N, T, d)
        for block in self.blocks:
            h = block(h)
        logits: Tensor = self.head(h)  # (N, T, V)
        return logits
