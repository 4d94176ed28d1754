"""Attention whose every head has the full width of the stream."""

from typing import cast

import torch
from torch import Tensor, nn

from lit_credit.utils.ranges import check_parts, check_sizes

__all__ = ["ParallelAttention", "SeparateHeads"]


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
        if not parallel_heads >= 1:
            raise ValueError(
                "`heads` (`parallel_heads`): the number of parallel heads is "
                f"{parallel_heads}, expected at least 1."
            )
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
            x: what queries and keys are made of.
            read: what values are made of; None for x.
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
        """What each of the H attentions adds: (N, T, H, d), of the input (N, T, H d) of ``o``."""
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
        """What each head adds: (N, T, H, d), of the inputs (N, T, d) of all ``o``."""
        heads = [cast(ParallelAttention, head) for head in self]
        return torch.cat([h.by_head(m) for h, m in zip(heads, mixed, strict=True)], 2)
