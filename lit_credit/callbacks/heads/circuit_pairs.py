"""Scores of all pairs of heads in which one head can read the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lit_credit.functional import (
    SVD,
    FactoredMatrix,
    composition_scores,
    diagonal_score,
    leading_directions,
    ov_circuit,
    position_matching,
    qk_circuit,
    rotary_matrix,
    screenot_rank,
    subspace_match,
    token_mismatch,
)
from lit_credit.inspect.attention.heads import AttentionHeads
from lit_credit.utils.short_text import choice

__all__ = ["CircuitPairs", "float64", "reach_for"]

_FEWEST_VALUES = 4
"""Smallest number of singular values that ScreeNOT needs."""


_MOST_ENTRIES = 2**24
"""Entries of products of circuits (d_head^2 per pair) held at once: 128 MB in float64."""


class Block(NamedTuple):
    """Slices of readers and of writers; every pair of them is allowed."""

    readers: slice
    writers: slice


@dataclass(frozen=True, eq=False)
class CircuitPairs:
    """The stacked weights of n heads in float64, (n, d_model, d_head), and their labels.

    Args:
        layers: the heads of each layer, in forward order, all of one d_model and d_head.
        fold_norm: multiply the reading weights of a head by the gain of its norm, if it is known.
        distances: D distances of the key before the query.
        reach: largest number of layers between a writer and its reader; None for all.

    Raises:
        MisconfigurationException: if there are fewer than two layers, or heads differ in size.
    """

    layers: Sequence[AttentionHeads]
    fold_norm: bool
    distances: Sequence[int]
    reach: int | None = None

    def __post_init__(self) -> None:
        sizes = {heads.name: tuple(heads.query.shape[1:]) for heads in self.layers}
        if len(self.layers) < 2:
            raise MisconfigurationException(
                f"one layer with attention, {', '.join(sizes)}; a head reads what one of an earlier"
                " layer wrote, so expected at least two."
            )
        if len(set(sizes.values())) > 1:
            shown = choice(f"{name} {size}" for name, size in sizes.items())
            raise MisconfigurationException(
                f"heads of different sizes (d_model, d_head): {shown}. Choose `units` of one size."
            )

    @property
    def labels(self) -> list[str]:
        """``L01H00`` for the first head of the second layer."""
        return [
            f"L{layer:02d}H{head:02d}"
            for layer, heads in enumerate(self.layers)
            for head in range(len(heads.query))
        ]

    @property
    def names(self) -> dict[str, tuple[int, int]]:
        """Place of each pair in (readers, writers): ``L00H00-L01H00``, writing before reading."""
        labels = self.labels
        writers, readers = labels[self.writers], labels[self.readers]
        return {f"{writers[j]}-{readers[i]}": (i, j) for i, j in self.allowed.nonzero().tolist()}

    @cached_property
    def layer(self) -> Tensor:
        """The layer of each head, (n,)."""
        return torch.tensor([i for i, heads in enumerate(self.layers) for _ in heads.query])

    @property
    def readers(self) -> slice:
        """The heads that can read others: those after the first layer."""
        return slice(len(self.layers[0].query), None)

    @property
    def writers(self) -> slice:
        """The heads that others can read: those before the last layer."""
        return slice(None, -len(self.layers[-1].query))

    @property
    def allowed(self) -> Tensor:
        """Bool (readers, writers): the writer is in an earlier layer, within reach."""
        behind = self.layer[self.readers][:, None] - self.layer[self.writers]
        return (behind > 0) & (behind <= (self.reach or len(self.layers)))

    def weight(self, kind: str, heads: slice) -> Tensor:
        """``query``, ``key``, ``value`` or ``output``, (heads, d_model, d_head)."""
        return self._weights[kind][heads]

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        """Weights of all heads; reading weights include the gains of the norm and of the scores."""
        stacked = {
            kind: float64(torch.cat([getattr(layer.folded(), kind) for layer in self.layers]))
            for kind in ("query", "key", "value", "output")
        }
        gains = [layer.norm_gain for layer in self.layers]
        if self.fold_norm and any(gain is not None for gain in gains):
            one = self.layers[0].query.new_ones(self.layers[0].query.shape[1])
            rows = torch.stack([one if gain is None else gain for gain in gains])
            for kind in ("query", "key", "value"):
                stacked[kind] *= float64(rows[self.layer.to(rows.device)])[..., None]
        return stacked

    @cached_property
    def qk(self) -> FactoredMatrix:
        """W_QK of the readers at all distances, (D, readers, d_model, d_model)."""
        query, key = (self.weight(kind, self.readers) for kind in ("query", "key"))
        # Expanded, so that both factors have the same leading dimensions.
        keys = key.expand(len(self.distances), *key.shape)
        turned = any(self.distances) and any(layer.rope is not None for layer in self.layers)
        query = query.expand(len(self.distances), *query.shape)
        return qk_circuit(query, keys, self._rotations()[:, self.readers] if turned else None)

    @cached_property
    def _own_ov(self) -> FactoredMatrix:
        """W_OV of the readers."""
        return self._ov(self.readers)

    @cached_property
    def ov(self) -> FactoredMatrix:
        """W_OV of the writers, (writers, d_model, d_model)."""
        return self._ov(self.writers)

    def _ov(self, heads: slice) -> FactoredMatrix:
        return ov_circuit(self.weight("output", heads), self.weight("value", heads))

    def _rotations(self) -> Tensor:
        """Rotations (D, n, d_head, d_head); the identity for heads without rotary positions."""
        rotations = []
        for heads in self.layers:
            count, _, size = heads.query.shape
            rope = heads.rope
            frequencies = heads.query.new_zeros(0) if rope is None else rope.frequencies
            turn = rotary_matrix(
                float64(frequencies).to(self._weights["query"].device),
                torch.tensor(self.distances),
                size,
                "interleaved" if rope is None else rope.layout,
            )
            rotations.append(turn[:, None].expand(-1, count, -1, -1))
        return torch.cat(rotations, 1)

    @cached_property
    def _read(self) -> SVD:
        return self.qk.svd()

    @cached_property
    def _written(self) -> SVD:
        return self.ov.svd()

    @cached_property
    def _ranks(self) -> tuple[Tensor, Tensor] | None:
        """ScreeNOT's estimates of the ranks of W_QK (readers,) and W_OV (writers,), or None."""
        width, size = self.layers[0].query.shape[1:]
        if size < _FEWEST_VALUES:
            return None
        shape = width, width
        read, written = self._read.s[0], self._written.s
        most = 3 * size // 8  # for higher ranks too few values are left to estimate the noise
        return screenot_rank(read, shape, most), screenot_rank(written, shape, most)

    def estimated_ranks(self) -> dict[str, float]:
        """``rank/qk`` and ``rank/ov``, means over the reading and over the writing heads.

        NaN if a head has a weight that is not finite.
        """
        values = self._read.s[0], self._written.s
        means = {}
        for name, rank, s in zip(("qk", "ov"), self._ranks or (), values, strict=False):
            known = rank.double().masked_fill(~s.isfinite().all(-1), torch.nan)
            means[f"rank/{name}"] = known.mean().item()
        return means

    def match(self, ranks: Sequence[int], block: Block) -> dict[str, Tensor]:
        """Match of the subspaces at each rank, and at the smaller of a pair's estimated ranks.

        Returns:
            ``match_rms/R10`` and so on, (D, readers, writers) of a block.
        """
        own, tags = None, [f"R{rank:02d}" for rank in ranks]
        if self._ranks is not None:
            qk, ov = (rank[some] for rank, some in zip(self._ranks, block, strict=True))
            own = torch.minimum(qk[:, None], ov).clamp(min=1)  # 1 if the estimate is 0
            tags.append("estimated")
        read, written = self._read.v[:, block.readers], self._written.u[block.writers]
        found = subspace_match(read[:, :, None], written, ranks, own)
        return {
            f"match_{name}/{tag}": cosines[..., place]
            for name, cosines in found._asdict().items()
            for place, tag in enumerate(tags)
        }

    def first_layer(self, embedding: Tensor, ranks: Sequence[int]) -> dict[str, float]:
        """How the first layer reads and writes the embedding (V, d_model) in float64; head means.

        Returns:
            ``embedding_rms/R10/mean``, ``read_q/R10/token`` and so on.
        """
        first = slice(len(self.layers[0].query))
        values = {}
        if few := [rank for rank in ranks if rank <= len(embedding)]:
            leading = leading_directions(embedding.mT, max(few))
            match = subspace_match(leading, self._written.u[first], few)
            for name, cosines in match._asdict().items():
                for rank, mean in zip(few, cosines.mean(0).tolist(), strict=True):
                    values[f"embedding_{name}/R{rank:02d}/mean"] = mean
        weights = torch.stack([self.weight(kind, first) for kind in ("query", "key")])
        read = position_matching(embedding, weights, ranks)  # (2, heads, ranks)
        for name in ("token", "mean"):
            for side, shares in zip("qk", getattr(read, name).mean(1).tolist(), strict=True):
                for rank, share in zip(ranks, shares, strict=True):
                    values[f"read_{side}/R{rank:02d}/{name}"] = share
        return values

    def scores(self, ranks: Sequence[int], symbols: Tensor | None) -> dict[str, Tensor]:
        """All scores of the pairs; NaN where the writer is not in an earlier layer within reach.

        Args:
            ranks: ranks of the subspaces.
            symbols: (V, d_model) in float64, embeddings for the mismatch; None leaves the mismatch
                out.

        Returns:
            By tag, (D, readers, writers), or (1, readers, writers) for scores without a rotation.
        """
        readers, writers = self.allowed.shape
        found: dict[str, Tensor] = {}
        for block in self._blocks():
            for tag, pairs in self._of_block(block, ranks, symbols).items():
                if tag not in found:
                    found[tag] = pairs.new_full((len(pairs), readers, writers), torch.nan)
                found[tag][:, block.readers, block.writers] = pairs
        return found

    def _of_block(
        self, block: Block, ranks: Sequence[int], symbols: Tensor | None
    ) -> dict[str, Tensor]:
        qk, ov = self.qk[:, block.readers, None], self.ov[block.writers]
        found = {"z": diagonal_score(qk, ov), **self.match(ranks, block)}
        if symbols is not None:
            found["mismatch"] = token_mismatch(symbols, qk, ov)
        own = self._own_ov[None, block.readers, None]
        for name, score in composition_scores(qk[:1], own, ov)._asdict().items():
            found[f"composition/{name}"] = score
        return found

    def _blocks(self) -> Iterator[Block]:
        """Blocks of the heads of a reading layer with some of the writers that they can read."""
        first = len(self.layers[0].query)
        size = self.layers[0].query.shape[2]
        starts = [0]
        for heads in self.layers:
            starts.append(starts[-1] + len(heads.query))
        for reading in range(1, len(self.layers)):
            readers = slice(starts[reading] - first, starts[reading + 1] - first)
            earliest = 0 if self.reach is None else max(0, reading - self.reach)
            entries = len(self.distances) * (readers.stop - readers.start) * size**2
            step = max(1, _MOST_ENTRIES // entries)
            for start in range(starts[earliest], starts[reading], step):
                yield Block(readers, slice(start, min(start + step, starts[reading])))


def reach_for(layers: Sequence[AttentionHeads], most: int) -> int | None:
    """Largest number of layers between writers and readers that gives at most ``most`` pairs.

    Returns:
        At least 1; None if all earlier layers can be read.
    """
    counts = [len(heads.query) for heads in layers]
    pairs = 0
    for back in range(1, len(counts)):
        pairs += sum(reads * writes for reads, writes in zip(counts[back:], counts, strict=False))
        if pairs > most:
            return max(1, back - 1)
    return None


def float64(x: Tensor) -> Tensor:
    """Convert to float64; on the CPU if the device (Apple's ``mps``) has no float64."""
    return (x.cpu() if x.device.type == "mps" else x).double()
