"""The diagnostic ``SymbolAttention``: attention as a function of two symbols."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.contexts import ContextDiagnostic
from lit_credit.callbacks.heads.attention import (
    attention_by_label,
    head_tag,
    softmax_or_nan,
    without_sinks,
)
from lit_credit.callbacks.heads.attention_proof import prove_attention
from lit_credit.callbacks.heads.symbol_maps import symbol_maps
from lit_credit.functional import participation_ratio
from lit_credit.inspect.attention.recording import AttentionCall, recorded_attention
from lit_credit.inspect.contexts import Contexts
from lit_credit.runs.history import Row
from lit_credit.runs.table import TableRow
from lit_credit.utils.numbers import number_text
from lit_credit.utils.ranges import check_range

__all__ = ["SymbolAttention"]

_MOST_SHOWN = 12
_SINGULAR = 5
_PROVED_ON = 16


class _Head(NamedTuple):
    """A head's map and the numbers that describe it."""

    map: Tensor
    """(N, N): symbol at the key by last symbol."""
    mean: float
    std: float
    rank: float
    singular: list[float]


class SymbolAttention(ContextDiagnostic):
    r"""How much the last position attends to another position, by the symbols at both positions.

    .. math:: P_{ab} = \mathbb{E}[A_{\text{last}, \text{key}} \,|\,
        x_{\text{key}} = a, x_{\text{last}} = b]

    The mean is over the datamodule's ``contexts()`` (see :class:`Contexts`) with their prior; their
    x are whole numbers (M, T) with T >= 2. For contexts of two symbols, P is A itself. Logs for
    every attention module and head, over the pairs that occur:

    - ``symbol_attention/mean/<module>/H00``, ``std/..``: mean and standard deviation over pairs; a
      head whose attention does not depend on the symbols has a deviation of 0;
    - ``symbol_attention/rank/..``: effective rank of P, by
      :func:`lit_credit.functional.participation_ratio`.

    At the end of fit it writes these numbers of the last measurement, and the largest five singular
    values s1, .. of P, to ``<log_dir>/symbol_attention.csv``, and draws the maps of the twelve
    heads with the largest deviation. A pair that does not occur is grey. Rows and columns of
    symbols that never occur at their position are left out of the decomposed P. If a pair is still
    missing, rank and singular values are NaN. All values are NaN if the attention is not a softmax.

    Costs one forward on all contexts, some thousands at once, with their A in memory.

    See :class:`lit_credit.callbacks.ContextDiagnostic` for the other arguments.

    Args:
        key: position that is attended to, from 0.
        all_pairs: run the module on all pairs of symbols, even on those that do not occur, so that
            no pair is missing; only for contexts of two symbols.
        units: names or patterns of the attention modules; None takes all that are seen.

    Raises:
        ValueError: if ``key`` is not a position before the last, ``all_pairs`` is true for longer
            contexts, or one of ``units`` matches no attention that was seen.
        MisconfigurationException: if the datamodule offers no contexts of two or more symbols;
            before the first step, if no attention is seen, or an attention is not over the
            positions of the context.

    Example::

        trainer = Trainer(callbacks=[SymbolAttention(units=["blocks.0.attention"])])

    Reference:
        Dana, Pydi, Chevaleyre, Memorization in Attention-only Transformers, 2024, arXiv 2411.10115.
    """

    name = "symbol_attention"
    section = "symbol_attention"
    charts = ("mean", "std", "rank")
    options = ("key", "all_pairs")

    def __init__(
        self,
        *,
        key: int = 0,
        all_pairs: bool = False,
        units: list[str] | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figure: bool = True,
    ) -> None:
        super().__init__(
            units=units,
            every_n_epochs=every_n_epochs,
            every_n_steps=every_n_steps,
            figure=figure,
        )
        check_range(0, key=key)
        self.key = key
        self.all_pairs = all_pairs
        self._heads: dict[tuple[str, str], _Head] = {}
        self._sinks: dict[str, set[int]] = {}

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Check that there are contexts of symbols."""
        super().prepare(trainer, module)
        self._heads = {}

    def begin(self, trainer: Trainer, module: LightningModule) -> None:
        """Read the contexts."""
        super().begin(trainer, module)
        if self.all_pairs:
            self.contexts = _of_all_pairs(self.contexts)

    def prove(self, chunk: Chunk) -> dict[str, float]:
        """Check that the axes of A are heads, queries, keys; find keys that are not positions."""
        some, length = chunk.few(_PROVED_ON), chunk.contexts.x.shape[1]
        with torch.no_grad():
            proof = prove_attention(self, chunk.module, some.logits, self.units, keys=length)
        self._sinks = proof.sinks
        return proof.proved

    def update(self, chunk: Chunk) -> None:
        """Add the attention from the last position to the key, (M, H) float64 for each module."""
        with recorded_attention(chunk.module) as calls:
            chunk.logits()
        for label, call in attention_by_label(chunk.module, calls, self.units).items():
            self.gathered.add(label, self._at_key(label, call, chunk.contexts.x.shape).mT)

    def compute(self) -> dict[str, float]:
        """``mean/<module>/H..``, ``std/..`` and ``rank/..``; keeps the maps."""
        pairs = _Pairs(self.contexts, self.key)
        self._heads = {
            (label, head_tag(index)): pairs.described(attention)
            for label, heads in self.gathered.items()
            for index, attention in enumerate(heads.mT)
        }
        return {
            f"{quantity}/{label}/{tag}": getattr(head, quantity)
            for (label, tag), head in self._heads.items()
            for quantity in ("mean", "std", "rank")
        }

    def check(self, module: LightningModule, contexts: Contexts) -> None:
        """Refuse contexts that are not symbols, or do not have the position ``key``."""
        x = contexts.x
        whole = not (x.is_floating_point() or x.is_complex()) and x.numel() > 0
        if x.ndim != 2 or x.shape[1] < 2 or not whole or int(x.min()) < 0:
            raise MisconfigurationException(
                f"SymbolAttention: x of `contexts()` has shape {tuple(x.shape)} and dtype "
                f"{x.dtype}, expected whole numbers (M, T) of at least 0, with T >= 2 symbols."
            )
        if self.all_pairs and x.shape[1] != 2:
            raise ValueError(
                f"`all_pairs` is true, but contexts have {x.shape[1]} symbols, expected 2. Leave "
                "it false."
            )
        if self.key > x.shape[1] - 2:
            raise ValueError(
                f"`key` is {self.key}, but contexts have {x.shape[1]} symbols; expected from 0 to "
                f"{x.shape[1] - 2}, a position before the last."
            )

    def _at_key(self, label: str, call: AttentionCall, shape: Sequence[int]) -> Tensor:
        last = call.weights[:, :, -1:]
        allowed = None if call.allowed is None else call.allowed.expand_as(call.weights)[:, :, -1:]
        last = softmax_or_nan(last, allowed)
        last = without_sinks(last, shape[1], self._sinks.get(label, set()))
        count, length = last.shape[0], last.shape[3]
        if (count, length) != tuple(shape):
            raise MisconfigurationException(
                f"SymbolAttention: {label!r} attends over {length} positions of {count} sequences, "
                f"but there were {shape[0]} contexts of {shape[1]} symbols. Set `units` to the "
                "attention over the positions of the context."
            )
        return last[:, :, 0, self.key].double().cpu().mT

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """Maps of the last measurement."""
        if not self._heads:  # a resumed run that had ended: nothing was measured
            return None
        most = sorted(self._heads.items(), key=lambda item: _or_last(item[1].std), reverse=True)
        maps = {
            f"{label} {tag}\n{_told(head.std, head.rank)}": head.map
            for (label, tag), head in most[:_MOST_SHOWN]
        }
        title = f"Attention of the last position to position {self.key}, step {rows[-1]['step']}"
        ylabel = f"symbol at position {self.key}"
        return symbol_maps(maps, title=title, xlabel="last symbol", ylabel=ylabel)

    def table(self, rows: Sequence[Row], section: str) -> list[TableRow]:
        """One line per module and head, for the last measurement."""
        return [
            {"module": label, "head": tag, "step": rows[-1]["step"]}
            | {quantity: getattr(head, quantity) for quantity in ("mean", "std", "rank")}
            | {f"s{k + 1}": value for k, value in enumerate(head.singular)}
            for (label, tag), head in self._heads.items()
        ]


class _Pairs:
    """Means over the contexts of each pair of symbols.

    Args:
        contexts: all contexts with a prior above zero.
        key: position of the first symbol of the pair.
    """

    def __init__(self, contexts: Contexts, key: int) -> None:
        x = contexts.x.cpu().long()
        self.size = max(contexts.rows.shape[1], int(x.max()) + 1)
        self.index = x[:, key] * self.size + x[:, -1]
        self.prior = contexts.prior.cpu().double()
        self.total = self._summed(self.prior)

    def described(self, attention: Tensor) -> _Head:
        """The map of one head's attention (M,), and its numbers."""
        found = self._summed(self.prior * attention) / self.total
        live = self.total > 0
        values = found[live]
        whole = found[live.any(1)][:, live.any(0)]
        s = torch.full((_SINGULAR,), torch.nan, dtype=torch.float64)
        if whole.isfinite().all():
            own = torch.linalg.svdvals(whole)[:_SINGULAR]
            s[: len(own)] = own
        std = values.std(correction=0).item()
        return _Head(
            found, values.mean().item(), std, participation_ratio(whole).item(), s.tolist()
        )

    def _summed(self, values: Tensor) -> Tensor:
        """Sum (M,) for each pair of symbols, (N, N)."""
        zeros = torch.zeros(self.size**2, dtype=torch.float64)
        return zeros.index_add(0, self.index, values).reshape(self.size, self.size)


def _of_all_pairs(contexts: Contexts) -> Contexts:
    """All pairs of symbols with equal priors; the following symbols are not used."""
    size = contexts.rows.shape[1]
    symbols = torch.arange(size, device=contexts.x.device)
    rows = contexts.rows.new_zeros(1).expand(size**2, size)
    prior = contexts.prior.new_full((size**2,), size**-2.0)
    return Contexts(torch.cartesian_prod(symbols, symbols), prior, rows)


def _or_last(std: float) -> float:
    return std if std == std else -1.0


def _told(std: float, rank: float) -> str:
    return f"deviation {number_text(std, '.2f')}, rank {number_text(rank, '.1f')}"
