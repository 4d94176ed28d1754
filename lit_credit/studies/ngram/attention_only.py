"""A transformer of attention alone, for contexts of a few symbols."""

from collections import OrderedDict
from itertools import chain
from typing import cast

from torch import Tensor, nn

from lit_credit.inspect.capture import Point, capture
from lit_credit.studies.ngram.parallel_attention import ParallelAttention, SeparateHeads
from lit_credit.utils.ranges import check_parts, check_range, check_sizes

__all__ = ["AttentionOnly", "AttentionOnlyBlock"]


class AttentionOnlyBlock(nn.Module):
    """Parallel heads that read the normed stream plus the position, and add to the stream.

    Args:
        position: vectors of the positions, which all blocks share.
        attention: maps what queries and keys, and what values read, to (N, T, d).
        mlp: what is added after the attention, or None.
        without: the parts that are left out, of ``residual``, ``pos_qk``, ``emb_qk``, ``pos_ov``
            and ``emb_ov``.
    """

    def __init__(
        self,
        position: nn.Embedding,
        attention: ParallelAttention | SeparateHeads,
        mlp: nn.Module | None,
        without: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self.position = position
        self.norm = nn.LayerNorm(position.embedding_dim, elementwise_affine=False)
        self.attention = attention
        self.mlp = mlp
        self.without = without

    def forward(self, h: Tensor) -> Tensor:
        """Map the stream (N, T, d) to the stream, or to its last position if attention does."""
        z, position = self.norm(h), self.position.weight[: h.shape[1]]
        both = z + position
        qk, ov = (self._read(circuit, z, position, both) for circuit in ("qk", "ov"))
        added: Tensor = self.attention(qk, None if ov is qk else ov)
        if "residual" not in self.without:
            added = h[:, -added.shape[1] :] + added
        return added if self.mlp is None else added + self.mlp(added)

    def _read(self, circuit: str, z: Tensor, position: Tensor, both: Tensor) -> Tensor:
        if f"pos_{circuit}" in self.without:
            return z
        return position.expand_as(z) if f"emb_{circuit}" in self.without else both


class AttentionOnly(nn.Module):
    """Logits for the symbol that follows a context.

    A stream that starts as the symbols' vectors; each block norms it without gain or bias, adds the
    position's vector, and adds the sum of its heads, each of which has the full width; the head
    reads the stream's last position without a norm. No weight has a bias but those of the MLP.

    Args:
        vocab_size: symbols V.
        width: features d of the stream, and of every head.
        depth: blocks L.
        heads: parallel heads H of a block.
        splits: parts of each head that attend by themselves, of d / splits features.
        mlp_width: units of each hidden layer of a ReLU MLP in each block; None leaves it out.
        mlp_depth: hidden layers of that MLP.
        block_size: symbols of a context, n - 1.
        skip_residual: a block's heads replace the stream; the MLP still adds to it.
        skip_pos_qk: queries and keys do not read the position.
        skip_emb_qk: queries and keys read the position alone.
        skip_pos_ov: values do not read the position.
        skip_emb_ov: values read the position alone.
        separate_heads: each parallel head is a module of its own, ``blocks.0.attention.3``, that
            can be frozen, trained or given a feedback by itself. The function and what is drawn
            stay the same; it takes longer.
        silent_heads: output projections start at zero, so that a head adds nothing before it
            has learned.

    Raises:
        ValueError: if queries and keys, or values, would read nothing, ``splits`` does not divide
            ``width``, or a number is below 1.

    Example:
        >>> import torch
        >>> net = AttentionOnly(vocab_size=10, width=5, heads=20)
        >>> net(torch.zeros(3, 2, dtype=torch.long)).shape, net.credit_units
        (torch.Size([3, 10]), ['embed', 'blocks.0'])

    Reference:
        Dana, Pydi, Chevaleyre, Memorization in Attention-only Transformers, 2024, arXiv 2411.10115.
    """

    def __init__(
        self,
        vocab_size: int = 10,
        width: int = 5,
        depth: int = 1,
        heads: int = 1,
        splits: int = 1,
        mlp_width: int | None = None,
        mlp_depth: int = 1,
        block_size: int = 2,
        skip_residual: bool = False,
        skip_pos_qk: bool = False,
        skip_emb_qk: bool = False,
        skip_pos_ov: bool = False,
        skip_emb_ov: bool = False,
        separate_heads: bool = False,
        silent_heads: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(vocab_size=vocab_size, width=width, block_size=block_size)
        check_parts(depth=depth, splits=splits, mlp_depth=mlp_depth)
        check_range(most=10**5, heads=heads)  # the least is known to ParallelAttention
        if mlp_width is not None and not mlp_width >= 1:
            raise ValueError(
                f"`mlp_width` is {mlp_width}, expected at least 1, or None for no MLP."
            )
        check_sizes(mlp_width=mlp_width)
        flags = {
            "residual": skip_residual,
            "pos_qk": skip_pos_qk,
            "emb_qk": skip_emb_qk,
            "pos_ov": skip_pos_ov,
            "emb_ov": skip_emb_ov,
        }
        for circuit, who in (("qk", "queries and keys"), ("ov", "values")):
            if flags[f"pos_{circuit}"] and flags[f"emb_{circuit}"]:
                raise ValueError(
                    f"`skip_pos_{circuit}` and `skip_emb_{circuit}` are both true, so that {who} "
                    "would read nothing. Set one of them."
                )
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.embed = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(block_size, width)
        without = frozenset(name for name, left_out in flags.items() if left_out)
        self.blocks = nn.ModuleList()
        for index in range(depth):
            stacked = ParallelAttention(width, heads, splits, last_only=index == depth - 1)
            if silent_heads:
                nn.init.zeros_(stacked.o.weight)
            attention = SeparateHeads(stacked) if separate_heads else stacked
            mlp = None if mlp_width is None else _mlp(width, mlp_width, mlp_depth)
            self.blocks.append(AttentionOnlyBlock(self.position, attention, mlp, without))
        self.head = nn.Linear(width, vocab_size, bias=False)
        for weight in (self.embed.weight, self.position.weight, self.head.weight):
            nn.init.uniform_(weight, -(width**-0.5), width**-0.5)

    @property
    def credit_units(self) -> list[str]:
        """The submodules that receive one credit signal each, in forward order.

        The positions' vectors belong to every block, and learn from the credit of each.
        """
        return ["embed", *(f"blocks.{index}" for index in range(len(self.blocks)))]

    @property
    def readout(self) -> list[str]:
        """The submodule after the last unit; it learns from the true gradient."""
        return ["head"]

    @property
    def residual_stream(self) -> list[str]:
        """The submodules whose inputs are h_0 .. h_L, the last one at the last position only."""
        return [*(f"blocks.{index}" for index in range(len(self.blocks))), "head"]

    def forward(self, contexts: Tensor) -> Tensor:
        """Map contexts (N, n - 1) to logits (N, V).

        Raises:
            ValueError: if contexts are longer than ``block_size``.
        """
        if contexts.shape[1] > self.block_size:
            raise ValueError(
                f"`block_size` of the net is {self.block_size}, but a context has "
                f"{contexts.shape[1]} symbols. Make them equal."
            )
        h = self.embed(contexts)  # (N, T, d)
        for block in self.blocks:
            h = block(h)
        logits: Tensor = self.head(h[:, -1])  # (N, V)
        return logits

    def activations(self, contexts: Tensor) -> dict[str, Tensor]:
        """What the net computes on the way, by name.

        Args:
            contexts: (N, n - 1).

        Returns:
            The symbols' vectors ``stream.0`` (N, T, d) and the positions' ``position`` (T, d); for
            each block l = 0, 1, .. what each parallel head adds, ``blocks.0.heads`` (N, T, H, d),
            the stream after the attention, ``blocks.0.stream``, what the MLP adds,
            ``blocks.0.mlp``, and the stream after it, ``stream.1`` (N, T, d); ``logits`` (N, V). In
            the last block T is 1, the last position. All are in the graph.

        Example:
            >>> import torch
            >>> net = AttentionOnly(vocab_size=10, width=5, heads=20)
            >>> found = net.activations(torch.zeros(3, 2, dtype=torch.long))
            >>> found["blocks.0.heads"].shape
            torch.Size([3, 1, 20, 5])
        """
        points = {"stream.0": Point("embed", "output"), "logits": Point("head", "output")}
        blocks = [cast(AttentionOnlyBlock, block) for block in self.blocks]
        for index, block in enumerate(blocks):
            name = f"blocks.{index}"
            for part in block.attention.outputs:
                points[f"{name}.attention.{part}"] = Point(f"{name}.attention.{part}", "input")
            points[f"stream.{index + 1}"] = Point(name, "output")
            if block.mlp is not None:
                points[f"{name}.stream"] = Point(f"{name}.mlp", "input")
                points[f"{name}.mlp"] = Point(f"{name}.mlp", "output")
        with capture(self, list(points.values())) as captured:
            self(contexts)
        found = {name: captured[point] for name, point in points.items()}
        for index, block in enumerate(blocks):
            name, attention = f"blocks.{index}", block.attention
            mixed = [found.pop(f"{name}.attention.{part}") for part in attention.outputs]
            found[f"{name}.heads"] = attention.by_head(*mixed)
            found.setdefault(f"{name}.stream", found[f"stream.{index + 1}"])
        return {**found, "position": self.position.weight[: contexts.shape[1]]}


def _mlp(width: int, hidden: int, depth: int) -> nn.Sequential:
    layers = chain.from_iterable(
        ((f"fc{i + 1}", nn.Linear(hidden if i else width, hidden)), (f"relu{i + 1}", nn.ReLU()))
        for i in range(depth)
    )
    norm = nn.LayerNorm(width, elementwise_affine=False)
    return nn.Sequential(OrderedDict([("norm", norm), *layers, ("out", nn.Linear(hidden, width))]))
