"""The diagnostic ``CircuitMatching``: do circuits of two layers share a subspace?"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.diagnostic import Diagnostic
from lit_credit.callbacks.heads.circuit_figure import circuit_figure
from lit_credit.callbacks.heads.circuit_levels import (
    against_nulls,
    at_distance,
    chosen_pairs,
    match_ranks,
)
from lit_credit.callbacks.heads.circuit_pairs import CircuitPairs, float64, reach_for
from lit_credit.callbacks.heads.circuit_proof import PROVED_ON, ProvedCircuits, prove_circuits
from lit_credit.headlines import ComparisonFigure, Headline
from lit_credit.inspect.attention.head_weights import read_embedding, read_heads
from lit_credit.inspect.probe.probe import take_probe
from lit_credit.plotting import HeadPanel, head_heatmaps
from lit_credit.runs.history import Row, read_history
from lit_credit.utils.names import check_units, shown_names
from lit_credit.utils.numbers import number_text
from lit_credit.utils.private_names import has_loaders
from lit_credit.utils.ranges import check_range
from lit_credit.utils.short_text import choice

__all__ = ["CircuitMatching"]


def _best_match(rows: Sequence[Row], section: str) -> str | None:
    """The tag of the best pair's match, at the rank nearest to 10."""
    ranks = match_ranks(rows, section)
    return f"match_rms/R{ranks[0]:02d}/best" if ranks else None


_FIGURE = "circuits over steps"

_RANKS = (5, 10, 15, 20)
_MOST_PAIRS = 20_000
"""Twice the pairs of GPT-2's 144 heads, which take about as long as two training steps."""


class CircuitMatching(Diagnostic):
    r"""Does a head write what a head of a later layer reads?

    The answer comes from the weights alone, so any rule may have trained them. Let
    :math:`W_{QK} = W_Q R W_K^\top / \sqrt{d_{head}}` belong to a reading head, :math:`W_{OV} = W_O
    W_V^\top` to a writing head in an earlier layer, and Z = W_QK W_OV in the stream's d features.
    Logs values for the best pair of heads (``<pair>`` is ``best``: the largest value, for a
    mismatch the smallest) and for the named ``pairs`` (``L00H00-L01H03``: writing, reading):

    - ``circuits/z/<pair>``: the diagonal score of Z; ``circuits/z_sqrt_d/<pair>``: the score in
      standard deviations of unrelated circuits, comparable across widths;
    - ``circuits/mismatch/<pair>``: the share of symbols whose embedding, read by Z, matches the
      embedding of another symbol best;
    - ``circuits/match_rms/R10/<pair>``, ``match_largest/R10/..``: the match, at rank 10, of the
      subspace of keys that W_QK reads with the subspace that W_OV writes: rms and largest of the
      cosines of their principal angles; ``match_rms_sds/..`` and ``match_largest_sds/..``: the
      distance from unrelated subspaces, in their standard deviations, ``circuits/null_sd/..``;
    - ``circuits/z/null``, ``match_rms/R10/null``: the level of the best of as many unrelated pairs
      (the expected largest of as many normal numbers). A single or named pair is compared with the
      mean of unrelated pairs;
    - ``circuits/rank/qk``, ``rank/ov``: the rank that ScreeNOT estimates, mean over heads. It is at
      most 3/8 of a head's features, and somewhat too large if a head is as wide as the stream.
      ``match_rms/estimated/<pair>``: the match at the smaller of a pair's two estimated ranks;
    - ``circuits/composition/query/<pair>``, ``key``, ``value``: composition scores;
    - ``circuits/embedding_rms/R10/mean``, ``embedding_largest/R10/mean``: the same match, of the
      embedding's leading directions with W_OV of the first layer, mean over heads;
    - ``circuits/read_q/R10/token``, ``.../mean``, ``read_k/..``: which share of a single
      embedding's deviation from the mean, and of the mean, the first layer's W_Q and W_K read,
      mean over heads.

    If the vocabulary is larger than 4 d, 4 d evenly spread rows represent the embedding.

    If the heads use rotary positions, R rotates keys by the distance between positions. The values
    above are at distance 0, R = 1; ``distances`` adds z, mismatch and match of the pairs at other
    distances, as ``circuits/D+05/z/<pair>``.

    At the end of fit it draws all values over steps (with ``val/id_error`` and ``val/ood_error`` if
    ``MetricHistory`` recorded them), and a matrix of all pairs of the last measurement.

    Costs no forward pass: 5 ms for two heads of 64 features in a stream of 64, and 0.6 ms more for
    each distance; for the 9504 pairs of GPT-2 about two training steps. Heads are found in any net
    with attention of a common form, see :func:`read_heads`; other attention can define
    ``head_weights()``. Biases are not used.

    Before the first measurement it proves on four rows of the data that the heads as read give the
    scores and the output of their attention, and that all attention lies one after the other in one
    stream. The first row of the history states this, and names the norms whose gain is folded. If
    the module's loss cannot be run on a probe, the row states that nothing is proved. A net that
    fails the proof is refused: another order in a fused projection, capped scores, heads that mix,
    attention over features, two towers. Norms and rotations of queries and keys that no name tells
    are found numerically: an RMS, L2 or layer norm of each head or of all heads together, with or
    without gains of its own, followed by a rotation by position. The first row states them too.
    Gains are a part of W_Q and W_K. The size by which a norm divides, and a temperature, are
    positive factors; no score here depends on them.

    See :class:`lit_credit.callbacks.Diagnostic` for the other arguments.

    Args:
        ranks: ranks of the subspaces; None takes those of 5, 10, 15 and 20 that are at most the
            size of a head and do not force a match (2 r <= d).
        distances: further distances of the key before the query, besides 0; below 0 the key comes
            after the query, which a causal mask forbids.
        pairs: further pairs of heads besides the best, writing before reading.
        embedding: name of the embedding's submodule; None takes the module's token embedding.
        n_tokens: number of symbols, evenly spread over the vocabulary, for the mismatch.
        fold_norm: multiply a head's weights by the gain of the norm whose output its attention
            reads.
        reach: largest number of layers between a writing and a reading head. None takes all layers;
            in nets of more than 20,000 pairs it takes fewer layers, and a line says so.
        units: names or patterns of the attention modules, in forward order; None takes all.

    Raises:
        ValueError: if a rank is above the size of a head, a pair, a unit or the embedding is
            unknown, or the embedding is not as wide as the stream.
        MisconfigurationException: if there are not two layers with attention that can be read, or
            there are an encoder and a decoder and no ``units``; before the first step, if heads as
            read are not those of the net, or lie in several streams.

    Example::

        trainer = Trainer(callbacks=[CircuitMatching(every_n_steps=200)])

    Reference:
        Song, Xu, Zhong, Out-of-distribution generalization via composition: a lens through
        induction heads in Transformers, 2024, arXiv 2408.09503; its measurement rotates keys in the
        other direction, as if they came after the query. Elhage et al., A Mathematical Framework
        for Transformer Circuits, 2021.
    """

    name = "circuit_matching"
    section = "circuits"
    options = (
        "units",
        "ranks",
        "distances",
        "pairs",
        "embedding",
        "n_tokens",
        "fold_norm",
        "reach",
    )
    headline = (
        Headline("z", "z/best", form=".2f", order=30, better="up"),
        Headline("match", _best_match, form=".2f", order=30, better="up"),
        Headline("mismatch", "mismatch/best", form=".2f", order=30, better="down"),
    )
    comparison_figures = (
        ComparisonFigure("circuits", _FIGURE, circuit_figure),
        ComparisonFigure("circuits_log", _FIGURE, partial(circuit_figure, log_steps=True)),
    )

    def __init__(
        self,
        *,
        ranks: list[int] | None = None,
        distances: list[int] | None = None,
        pairs: list[str] | None = None,
        embedding: str | None = None,
        n_tokens: int = 128,
        fold_norm: bool = True,
        reach: int | None = None,
        units: list[str] | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figure: bool = True,
    ) -> None:
        super().__init__(
            every_n_epochs=every_n_epochs,
            every_n_steps=every_n_steps,
            figure=figure,
        )
        check_units(units)
        self.units = units
        if ranks is not None and not ranks:
            raise ValueError(f"`ranks` is {ranks}, expected one or more numbers, or None.")
        check_range(1, ranks=ranks, reach=reach)
        check_range(2, n_tokens=n_tokens)
        self.ranks = ranks
        self.distances = distances or []
        self.pairs = pairs or []
        self.embedding = embedding
        self.n_tokens = n_tokens
        self.fold_norm = fold_norm
        self.reach = reach
        self._matrices: dict[str, Tensor] = {}
        self._readers: list[str] = []
        self._writers: list[str] = []
        self._rank = 0
        self._few: Any = None
        self._no_rows = ""
        self._proof: ProvedCircuits | None = None

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Read the heads once, so that errors come before training."""
        self._proof = None
        pairs = self._read(module)
        if unknown := [pair for pair in self.pairs if pair not in pairs.names]:
            raise ValueError(
                f"`pairs` has {unknown[0]!r}, expected a writing and a reading head of a later "
                f"layer, such as: {', '.join(list(pairs.names)[:10])}."
            )
        if self.reach is None and pairs.reach is not None:
            rank_zero_info(
                f"CircuitMatching pairs heads that are at most {pairs.reach} layers apart, "
                f"{int(pairs.allowed.sum())} pairs. Set `reach` for more."
            )
        width, size = pairs.layers[0].query.shape[1:]
        self._embedding(module, width)
        ranks = self._ranks(width, size)
        if max(ranks) > size:
            raise ValueError(
                f"`ranks` has {max(ranks)}, but a head has {size} features. Leave it out."
            )
        tags = ("match_rms", "match_largest", "embedding_rms")
        curves = [f"{tag}/R{rank:02d}" for tag in tags for rank in ranks]
        self.charts = ["z", "mismatch", "rank", "composition/key", *curves]
        if forced := [rank for rank in ranks if 2 * rank > width]:
            rank_zero_warn(
                f"CircuitMatching: `ranks` {forced} in a stream of {width} features: subspaces of "
                f"more than {width // 2} dimensions cannot avoid each other."
            )

    def begin(self, trainer: Trainer, module: LightningModule) -> None:
        """Take a few rows for the proof; without rows there is no proof."""
        self._few, self._no_rows = None, ""
        try:
            self._few = take_probe(trainer, module, PROVED_ON).chunks[0]
        except Exception as error:  # the user's data may raise anything
            loop = trainer.fit_loop
            has_data = (
                trainer.state.fn != TrainerFn.FITTING
                or has_loaders(loop)
                or has_loaders(loop.epoch_loop.val_loop)
            )
            failed = f"{type(error).__name__}: {error}".splitlines()[0]
            self._no_rows = failed if has_data else "there are no data"

    def chunks(self, module: LightningModule) -> Iterable[Chunk]:
        """The module, with a few rows for the proof."""
        return [Chunk(module, self._few)]

    def prove(self, chunk: Chunk) -> dict[str, float]:
        """Check on a few rows of data that pairs of heads as read are pairs of the net."""
        layers = read_heads(chunk.module, self.units, proved_later=True)
        self._proof = prove_circuits(chunk, layers, self.fold_norm, self._no_rows)
        self._few = None
        return self._proof.statements

    def update(self, chunk: Chunk) -> None:
        """Measure all pairs with the present weights."""
        with torch.inference_mode():
            pairs = self._read(chunk.module)
            width = pairs.layers[0].query.shape[1]
            self._values = self._of_pairs(pairs, self._embedding(chunk.module, width))

    def compute(self) -> dict[str, float]:
        """``<quantity>/<pair>`` at distance 0, ``D+05/<quantity>/<pair>`` at other distances."""
        return self._values

    def _of_pairs(self, pairs: CircuitPairs, embedding: Tensor | None) -> dict[str, float]:
        width, size = pairs.layers[0].query.shape[1:]
        ranks = self._ranks(width, size)
        symbols = None if embedding is None else float64(_spread(embedding, self.n_tokens))
        scores = pairs.scores(ranks, symbols)
        places = pairs.names if self.pairs else {}
        values = chosen_pairs(scores, pairs.distances, {name: places[name] for name in self.pairs})
        values |= against_nulls(values, self.pairs, ranks, width, int(pairs.allowed.sum()))
        values |= pairs.estimated_ranks()
        if embedding is not None:
            values |= pairs.first_layer(float64(_spread(embedding, 4 * width)), ranks)
        self._keep(scores, pairs, ranks)
        return values

    def draw(self, rows: Sequence[Row], section: str) -> Mapping[str, Figure]:
        """The curves over steps, also at each distance, and the pairs of the last measurement.

        Of a single row the pairs alone are drawn.
        """
        histories = {"circuit_matching": rows}
        errors = self._folder and self._folder / "metrics.jsonl"
        if errors is not None and errors.is_file():
            histories["metrics"] = read_history(errors)
        draw = partial(circuit_figure, {"this run": [histories]}, section=section)
        figures = {"figure": draw()}
        for distance in self.distances if len(rows) > 1 else ():
            where = f"{abs(distance)} position{'s' * (abs(distance) != 1)}"
            title = f"Keys {where} {'before' if distance > 0 else 'after'} their query"
            name = at_distance(distance).rstrip("/")
            figures[name] = draw(distance=distance, title=title)
        # A resumed run that had ended has measured nothing; a single pair needs no matrix.
        if not self._matrices or self._matrices["z"].numel() == 1:
            return figures
        maps = {
            panel: dict(zip(self._readers, self._matrices[tag].tolist(), strict=True))
            for panel, tag in (
                (HeadPanel("diagonal score z", at_least=1.0), "z"),
                (HeadPanel(f"match of rank {self._rank}, rms", at_least=1.0), "match"),
                (HeadPanel("token mismatch", at_least=1.0), "mismatch"),
            )
            if tag in self._matrices
        }
        title = f"Reading heads (rows) of writing heads (columns), step {rows[-1]['step']}"
        pairs = head_heatmaps(maps, title=title, columns=self._writers)
        # A single measurement has no curves.
        return {"figure": pairs} if len(rows) == 1 else figures | {"pairs": pairs}

    def reading(self, rows: Sequence[Row], section: str) -> str:
        """The best pairs at the last measurement, compared with unrelated circuits."""
        values = {tag.removeprefix(f"{section}/"): v for tag, v in rows[-1]["values"].items()}
        rank = match_ranks(rows, section)[0]
        quantities = {"z": "z", f"match at rank {rank}": f"match_rms/R{rank:02d}"}
        parts = [
            "{} {} (unrelated {} ± {})".format(
                name,
                *(
                    number_text(values[key], ".2f")
                    for key in (f"{tag}/best", f"{tag}/null", f"null_sd/{tag}")
                ),
            )
            for name, tag in quantities.items()
        ]
        mismatch = number_text(values.get("mismatch/best", math.nan), ".2f")
        return f"best pair in each: {', '.join(parts)}, token mismatch {mismatch}."

    def _read(self, module: LightningModule) -> CircuitPairs:
        layers = read_heads(module, self.units, proved_later=True)
        parts = {part for heads in layers for part in heads.name.split(".")}
        if self.units is None and {"encoder", "decoder"} <= parts:
            raise MisconfigurationException(
                f"CircuitMatching: {type(module).__name__} has an encoder and a decoder, which are "
                "two streams. Choose the attention of one by `units`, such as ['encoder.*.*'], "
                f"out of: {choice(shown_names(heads.name for heads in layers))}."
            )
        if self._proof is not None:
            layers = self._proof.with_gains(module, layers)
        reach = reach_for(layers, _MOST_PAIRS) if self.reach is None else self.reach
        return CircuitPairs(layers, self.fold_norm, [0, *self.distances], reach)

    def _embedding(self, module: LightningModule, width: int) -> Tensor | None:
        found = read_embedding(module, self.embedding)
        if found is not None and found.shape[1] != width:
            if self.embedding is None:  # the embedding found is not that of the stream
                return None
            raise ValueError(
                f"`embedding` is {self.embedding!r}, {found.shape[1]} features a symbol, but the "
                f"stream has {width}. Choose another, or None."
            )
        return found

    def _ranks(self, width: int, size: int) -> list[int]:
        if self.ranks is not None:
            return self.ranks
        fitting = [rank for rank in _RANKS if rank <= size and 2 * rank <= width]
        return fitting or [max(1, min(width // 4, size))]

    def _keep(
        self, scores: Mapping[str, Tensor], pairs: CircuitPairs, ranks: Sequence[int]
    ) -> None:
        """Keep the matrices of pairs for the figure, at distance 0."""
        self._rank = min(ranks, key=lambda rank: abs(rank - 10))
        shown = {"z": "z", "match": f"match_rms/R{self._rank:02d}", "mismatch": "mismatch"}
        self._matrices = {name: scores[tag][0] for name, tag in shown.items() if tag in scores}
        labels = pairs.labels
        self._readers, self._writers = labels[pairs.readers], labels[pairs.writers]


def _spread(embedding: Tensor, count: int) -> Tensor:
    """At most ``count`` rows, evenly spread from the first to the last."""
    if len(embedding) <= count:
        return embedding
    return embedding[torch.linspace(0, len(embedding) - 1, count, device=embedding.device).long()]
