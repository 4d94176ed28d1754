"""A transformer of attention alone, whose every head has the full width of the stream."""

from collections import OrderedDict
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn

from lit_credit.inspect.capture import Point, capture
from lit_credit.utils.ranges import check_parts, check_range, check_sizes

__all__ = ["AttentionOnly", "AttentionOnlyBlock", "ParallelAttention", "SeparateHeads"]


class _SoftmaxWeights(nn.Module):
    """Softmax over the keys, of scores (N, H, T, S) that lie in memory as (N, T, S, H)."""

    returns_attention = True
    """Tells ``lit_credit.inspect.attention.recording`` that the output is A."""

    def forward(self, scores: Tensor, allowed: Tensor | None = None) -> Tensor:
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        return scores.permute(0, 2, 3, 1).softmax(2).permute(0, 3, 1, 2)


class ParallelAttention(nn.Module):
    """A sum of H attentions, each of the full width d, without biases.

    The same as H modules ``nn.MultiheadAttention(d, splits, bias=False)`` added up, and drawn as
    they are; their weights are stacked, so that a net with feedback alignment has one B for each
    of q, k, v and o, whose rows (columns, for o) are the heads' own.

    Args:
        width: features d of a position.
        parallel_heads: attentions H.
        splits: heads of each, of d / splits features.
        last_only: answer at the last position only.

    Raises:
        ValueError: if ``splits`` does not divide ``width``, or there are no heads.

    Example:
        >>> ParallelAttention(width=6, parallel_heads=4)(torch.zeros(3, 2, 6)).shape
        torch.Size([3, 2, 6])
    """

    def __init__(
        self, width: int, parallel_heads: int, splits: int = 1, last_only: bool = False
    ) -> None:
        super().__init__()
        check_sizes(width=width)
        check_parts(parallel_heads=parallel_heads, splits=splits)
        if width % splits:
            raise ValueError(
                f"`splits` is {splits}, which does not divide `width`, {width}. Change one of them."
            )
        self.heads = parallel_heads * splits
        self.last_only = last_only
        self.q, self.k, self.v = (
            nn.Linear(width, parallel_heads * width, bias=False) for _ in range(3)
        )
        self.o = nn.Linear(parallel_heads * width, width, bias=False)
        self.weights = _SoftmaxWeights()
        for layer in (self.q, self.k, self.v):
            nn.init.uniform_(layer.weight, -((1.5 / width) ** 0.5), (1.5 / width) ** 0.5)
        nn.init.uniform_(self.o.weight, -(width**-0.5), width**-0.5)

    def forward(self, x: Tensor, read: Tensor | None = None) -> Tensor:
        """Map (N, T, d) to (N, T, d), or to (N, 1, d) with ``last_only``; no position sees a later.

        Args:
            x: the input of queries and keys.
            read: the input of values; None for x.
        """
        q = self._split(self.q(x[:, -1:] if self.last_only else x))  # (N, T, H, d_h)
        k, v = self._split(self.k(x)), self._split(self.v(x if read is None else read))
        # Products written out, with the heads inside: for two positions of a few features this
        # takes a fourth of the time of scaled_dot_product_attention. Its memory grows by T S H d.
        scores = (q[:, :, None] * k[:, None]).sum(-1) * q.shape[-1] ** -0.5  # (N, T, S, H)
        allowed = None
        if not self.last_only:
            allowed = x.new_ones(scores.shape[1:3]).tril().bool()
        a = self.weights(scores.permute(0, 3, 1, 2), allowed)  # (N, H, T, S)
        mixed = (a.permute(0, 2, 3, 1)[..., None] * v[:, None]).sum(2)  # (N, T, H, d_h)
        output: Tensor = self.o(mixed.flatten(2))
        return output

    @property
    def outputs(self) -> list[str]:
        """The projection, by name, whose input :meth:`by_head` takes."""
        return ["o"]

    def by_head(self, mixed: Tensor) -> Tensor:
        """The output of each attention, (N, T, H, d), from the input of ``o``, (N, T, H d)."""
        mixed, weight = (
            torch.unflatten(x, -1, (-1, len(self.o.weight))) for x in (mixed, self.o.weight)
        )
        return torch.einsum("nthi,ohi->ntho", mixed, weight)

    def _split(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (self.heads, -1))


class SeparateHeads(nn.ModuleList):
    """The attentions of a :class:`ParallelAttention` as a module each, with its weights.

    The same function, from the same weights. Each head has a name of its own, ``0``, ``1``, ..,
    below which ``q``, ``k``, ``v`` and ``o`` are (d, d), so that heads can be frozen, trained or
    given a feedback one by one, which is then drawn for a matrix of that size. They run one after
    the other, which takes longer.

    Args:
        stacked: the heads; their weights are copied.

    Example:
        >>> heads = SeparateHeads(ParallelAttention(width=6, parallel_heads=4))
        >>> heads(torch.zeros(3, 2, 6)).shape, heads[3].q.weight.shape
        (torch.Size([3, 2, 6]), torch.Size([6, 6]))
    """

    heads_in_parallel = True
    """Tells ``lit_credit.callbacks.ExactDivergence`` that the attentions below are one layer."""

    def __init__(self, stacked: ParallelAttention) -> None:
        width = len(stacked.o.weight)
        count = stacked.o.in_features // width
        # On meta they draw nothing, so that a net of them starts like one of stacked heads.
        with torch.device("meta"):
            super().__init__(
                ParallelAttention(width, 1, stacked.heads // count, stacked.last_only)
                for _ in range(count)
            )
        for name, dim in (("q", 0), ("k", 0), ("v", 0), ("o", 1)):
            parts = stacked.get_parameter(f"{name}.weight").detach().chunk(count, dim)
            for head, part in zip(self, parts, strict=True):
                head.get_submodule(name).weight = nn.Parameter(part.clone())

    def forward(self, x: Tensor, read: Tensor | None = None) -> Tensor:
        """The sum of the heads; see :meth:`ParallelAttention.forward`."""
        return torch.stack([head(x, read) for head in self]).sum(0)

    @property
    def outputs(self) -> list[str]:
        """The projections, by name, whose inputs :meth:`by_head` takes."""
        return [f"{index}.o" for index in range(len(self))]

    def by_head(self, *mixed: Tensor) -> Tensor:
        """The output of each head, (N, T, H, d), from the inputs of all ``o``, (N, T, d)."""
        heads = [cast(ParallelAttention, head) for head in self]
        return torch.cat([h.by_head(m) for h, m in zip(heads, mixed, strict=True)], 2)


class AttentionOnlyBlock(nn.Module):
    """Parallel heads that read the normed stream plus the position, and add to the stream.

    Args:
        position: vectors of the positions, which all blocks share.
        attention: maps the input of queries and keys, and that of values, to (N, T, d).
        mlp: a module whose output is added after the attention, or None.
        without: the parts to leave out, of ``residual``, ``pos_qk``, ``emb_qk``, ``pos_ov``
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
        check_parts(heads=heads)
        check_range(1, mlp_width=mlp_width, remedy="None leaves the MLP out.")
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
        """The intermediate values of a forward pass, by name.

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
