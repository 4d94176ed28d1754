"""All heads of a net, and the scores of every pair of them in which one can read the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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
from lit_credit.utils.attention_heads import AttentionHeads

__all__ = ["CircuitPairs", "float64"]

_FEWEST_VALUES = 4
"""Singular values that ScreeNOT needs."""


@dataclass(frozen=True, eq=False)
class CircuitPairs:
    """The stacked weights of n heads in float64, (n, d_model, d_head), and what they are called.

    Args:
        layers: the heads of each layer, in forward order, all of one d_model and d_head.
        fold_norm: multiply what a head reads by the gain of its norm, where that is known.
        distances: D positions of the key before the query.

    Raises:
        MisconfigurationException: if there are fewer than two layers, or heads differ in size.
    """

    layers: Sequence[AttentionHeads]
    fold_norm: bool
    distances: Sequence[int]

    def __post_init__(self) -> None:
        sizes = {heads.name: tuple(heads.query.shape[1:]) for heads in self.layers}
        if len(self.layers) < 2:
            raise MisconfigurationException(
                f"one layer with attention, {', '.join(sizes)}; a head reads what one of an earlier"
                " layer wrote, so expected at least two."
            )
        if len(set(sizes.values())) > 1:
            raise MisconfigurationException(
                f"heads of different sizes (d_model, d_head): {sizes}. Choose `units` of one size."
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
        """(n,), the layer of each head."""
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
        """Bool (readers, writers): the writer is in an earlier layer."""
        return self.layer[self.readers][:, None] > self.layer[self.writers]

    def weight(self, kind: str, heads: slice) -> Tensor:
        """``query``, ``key``, ``value`` or ``output``, (heads, d_model, d_head)."""
        return self._weights[kind][heads]

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        """Of all heads, what is read multiplied by the gain of its norm, and that of its scores."""
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
        # Expanded, so that both factors have all the leading dimensions.
        keys = key.expand(len(self.distances), *key.shape)
        turned = any(self.distances) and any(layer.rope is not None for layer in self.layers)
        query = query.expand(len(self.distances), *query.shape)
        return qk_circuit(query, keys, self._rotations()[:, self.readers] if turned else None)

    @cached_property
    def ov(self) -> FactoredMatrix:
        """W_OV of the writers, (writers, d_model, d_model)."""
        return self._ov(self.writers)

    def _ov(self, heads: slice) -> FactoredMatrix:
        return ov_circuit(self.weight("output", heads), self.weight("value", heads))

    def _rotations(self) -> Tensor:
        """(D, n, d_head, d_head); no rotation where heads do not know positions by it."""
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
        """What ScreeNOT makes of the ranks of W_QK (readers,) and of W_OV (writers,), if it can."""
        width, size = self.layers[0].query.shape[1:]
        if size < _FEWEST_VALUES:
            return None
        shape = width, width
        read, written = self._read.s[0], self._written.s
        most = 3 * size // 8  # beyond it too few values are left to tell noise by
        return screenot_rank(read, shape, most), screenot_rank(written, shape, most)

    def estimated_ranks(self) -> dict[str, float]:
        """``rank/qk`` and ``rank/ov``, means over the heads that read and that write.

        NaN where a head has a weight that is not finite.
        """
        values = self._read.s[0], self._written.s
        means = {}
        for name, rank, s in zip(("qk", "ov"), self._ranks or (), values, strict=False):
            known = rank.double().masked_fill(~s.isfinite().all(-1), torch.nan)
            means[f"rank/{name}"] = known.mean().item()
        return means

    def match(self, ranks: Sequence[int]) -> dict[str, Tensor]:
        """Match of the subspaces at each rank, and at the smaller one of a pair's estimated ranks.

        Returns:
            ``match_rms/R10`` and so on, (D, readers, writers).
        """
        every = set(ranks)
        if self._ranks is not None:
            qk, ov = self._ranks
            own = torch.minimum(qk[:, None], ov).clamp(min=1)  # 1 where nothing stands out
            every.update(own.flatten().tolist())
        order = torch.tensor(sorted(every))
        found = subspace_match(self._read.v[:, :, None], self._written.u, order.tolist())
        tagged = {}
        for name, cosines in found._asdict().items():
            for rank in ranks:
                tagged[f"match_{name}/R{rank:02d}"] = cosines[..., order.tolist().index(rank)]
            if self._ranks is not None:
                place = torch.searchsorted(order, own.cpu()).to(cosines.device)
                place = place[None, ..., None].expand(len(self.distances), -1, -1, -1)
                tagged[f"match_{name}/estimated"] = cosines.gather(-1, place)[..., 0]
        return tagged

    def first_layer(self, embedding: Tensor, ranks: Sequence[int]) -> dict[str, float]:
        """How the first layer meets the embedding (V, d_model), in float64; means over its heads.

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
        """All that is measured of a pair, NaN where the reader comes too early.

        Args:
            ranks: of the subspaces.
            symbols: (V, d_model) in float64, embeddings that look for themselves; None leaves the
                mismatch out.

        Returns:
            By tag, (D, readers, writers), or (1, readers, writers) of what is taken without any
            rotation.
        """
        qk, ov = self.qk[:, :, None], self.ov
        found = {"z": diagonal_score(qk, ov), **self.match(ranks)}
        if symbols is not None:
            found["mismatch"] = token_mismatch(symbols, qk, ov)
        composed = composition_scores(qk[:1], self._ov(self.readers)[None, :, None], ov)
        for name, score in composed._asdict().items():
            found[f"composition/{name}"] = score
        allowed = self.allowed.to(ov.left.device)
        if allowed.all():
            return found
        return {tag: torch.where(allowed, pairs, torch.nan) for tag, pairs in found.items()}


def float64(x: Tensor) -> Tensor:
    """In double precision, on the CPU if the device (Apple's ``mps``) has none."""
    return (x.cpu() if x.device.type == "mps" else x).double()
