"""The diagnostic ``HeadBehaviour``: attention of heads on repeated random tokens."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Generator, Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.diagnostic import Diagnostic
from lit_credit.callbacks.base.failures import missing
from lit_credit.callbacks.heads.attention import (
    attention_by_label,
    head_tag,
    softmax_or_nan,
    without_sinks,
)
from lit_credit.callbacks.heads.attention_proof import prove_attention
from lit_credit.functional import (
    duplicate_token_score,
    induction_score,
    previous_token_score,
    repeated_tokens,
)
from lit_credit.headlines import Headline, Panel
from lit_credit.inspect.attention.head_weights import read_embedding
from lit_credit.inspect.attention.recording import AttentionCall, recorded_attention
from lit_credit.plotting import HeadPanel, head_heatmaps
from lit_credit.runs.history import Row
from lit_credit.utils.names import check_units
from lit_credit.utils.ranges import check_parts, check_range

__all__ = ["HeadBehaviour"]

_PANELS = {
    "previous_token": HeadPanel("to the previous token", at_least=1.0),
    "induction": HeadPanel("induction", at_least=1.0),
    "duplicate_token": HeadPanel("to a duplicate token", at_least=1.0),
}


class HeadBehaviour(Diagnostic):
    """Which heads look at the token before, and which ones copy by induction?

    The module runs on random tokens of its vocabulary: each sequence is a block of ``period``
    different tokens, written ``repeats`` times. Logs for every attention module and head the mean
    attention, over the sequences and the queries that have such a key, to

    - ``behaviour/previous_token/<module>/H00``: the token before;
    - ``behaviour/induction/..``: the token that followed the present one in the block before;
    - ``behaviour/duplicate_token/..``: the present token in the block before;

    and ``behaviour/<score>/best``, the largest over all heads. NaN if the attention is not a
    softmax. Further keys before or after the tokens that carry nothing of them (attention sinks,
    keys that are parameters) have their share of A, but no score.

    Needs no data: the sequences are the same at every measurement and in every run. At the end of
    fit it draws heat maps of the last measurement.

    Costs one forward on ``n_samples`` sequences, and holds A of all modules: 4 n H T^2 bytes each
    in float32, with T = ``period * repeats``.

    See :class:`lit_credit.callbacks.Diagnostic` for the other arguments.

    Args:
        period: tokens of a block, at least 2 and at most the size of the vocabulary.
        repeats: how often the block is written, at least twice.
        n_samples: number of sequences.
        seed: seed of the sequences.
        vocab_size: tokens are drawn from 0 .. ``vocab_size`` - 1; None takes the number of vectors
            in the module's first ``nn.Embedding`` of tokens.
        input_name: the module is called as ``module(tokens)``, or as
            ``module(**{input_name: tokens})`` if this is given, such as ``input_ids``.
        units: names or patterns of the attention modules; None takes all that are seen.

    Raises:
        ValueError: if an argument is out of range, or one of ``units`` matches no attention that
            was seen.
        MisconfigurationException: if no embedding tells the size of the vocabulary; before the
            first step, if the module cannot be called with tokens, or has no attention of every
            token to every token.

    Example::

        trainer = Trainer(callbacks=[HeadBehaviour(period=25, every_n_steps=100)])

    Reference:
        Olsson et al., In-context Learning and Induction Heads, 2022, arXiv 2209.11895.
    """

    name = "head_behaviour"
    section = "behaviour"
    charts = tuple(_PANELS)
    headline = (
        Headline(
            "induction",
            "induction/best",
            form=".3f",
            better="up",
            panel=Panel("Best induction head", "attention to the induced token", reach=(0, 1)),
        ),
    )
    over_heads = ("max",)
    options = ("n_samples", "units", "period", "repeats", "seed", "vocab_size", "input_name")

    def __init__(
        self,
        *,
        period: int = 16,
        repeats: int = 2,
        n_samples: int = 16,
        seed: int = 0,
        vocab_size: int | None = None,
        input_name: str | None = None,
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
        check_range(1, n_samples=n_samples)
        check_parts(2, period=period, repeats=repeats)
        check_range(2, vocab_size=vocab_size)
        check_range(seed=seed)
        self.n_samples = n_samples
        self.units = units
        self.period = period
        self.repeats = repeats
        self.seed = seed
        self.vocab_size = vocab_size
        self.input_name = input_name
        self._tokens = torch.empty(0, dtype=torch.long)
        self._sinks: dict[str, set[int]] = {}

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Draw the sequences."""
        vocab_size = self.vocab_size
        if vocab_size is None:
            embedding = read_embedding(module)
            if embedding is None:
                raise missing(self, module, "an nn.Embedding of tokens", "Set `vocab_size`.")
            vocab_size = len(embedding)
        generator = Generator().manual_seed(self.seed)
        self._tokens = repeated_tokens(
            self.n_samples, self.period, self.repeats, vocab_size, generator
        )

    def prove(self, chunk: Chunk) -> dict[str, float]:
        """Check that the axes of A are heads, queries and keys; find keys that are not tokens."""
        with torch.no_grad():
            run, length = partial(self._run, chunk.module), self._tokens.shape[1]
            proof = prove_attention(self, chunk.module, run, self.units, keys=length)
        self._sinks = proof.sinks
        return proof.proved

    def update(self, chunk: Chunk) -> None:
        """Add the scores (H,) of each module on the sequences."""
        with torch.no_grad(), recorded_attention(chunk.module) as calls:
            self._run(chunk.module)
        for label, call in attention_by_label(chunk.module, calls, self.units).items():
            for score, numbers in self._scores(label, call).items():
                self.gathered.add(f"{score}/{label}", numbers)

    def compute(self) -> dict[str, float]:
        """``<score>/<module>/H..`` and ``<score>/best``."""
        values: dict[str, float] = {}
        for tag, numbers in self.gathered.items():
            for index, value in enumerate(numbers.tolist()):
                values[f"{tag}/{head_tag(index)}"] = value
        for score in _PANELS:
            heads = [v for tag, v in values.items() if tag.startswith(f"{score}/")]
            values[f"{score}/best"] = max(filter(math.isfinite, heads), default=math.nan)
        return values

    def smaller(self) -> str:
        """Remedy for a lack of memory: half of the sequences."""
        if self.n_samples == 1:
            return super().smaller()
        return f"set `n_samples={self.n_samples // 2}`, half of its sequences"

    def _run(self, module: LightningModule) -> None:
        tokens = self._tokens.to(module.device)
        try:
            module(tokens) if self.input_name is None else module(**{self.input_name: tokens})
        except Exception as error:
            called = "tokens" if self.input_name is None else f"{self.input_name}=tokens"
            raise MisconfigurationException(
                f"HeadBehaviour called {type(module).__name__}({called}) with whole numbers from "
                f"0 to {int(tokens.max())}, of shape {tuple(tokens.shape)}, and it failed: "
                f"{type(error).__name__}: {str(error).rstrip('.')}. "
                "Give the module a `forward` that takes such tokens, set `input_name` to its "
                "argument, `vocab_size` to that of the net, or `period` and `repeats` so that "
                "their product is a length that it takes."
            ) from error

    def _scores(self, label: str, call: AttentionCall) -> dict[str, Tensor]:
        """The scores by name, each (H,)."""
        length = self._tokens.shape[1]
        attention = softmax_or_nan(call.weights, call.allowed)
        attention = without_sinks(attention, length, self._sinks.get(label, set()))
        if attention.shape[-2:] != (length, length):
            raise MisconfigurationException(
                f"HeadBehaviour ran on sequences of {length} tokens, but the attention of {label} "
                f"has the shape {tuple(call.weights.shape)}, not (N, H, {length}, {length}), and "
                "no other keys before or after the tokens'. Leave it out by `units`."
            )
        return {
            "previous_token": previous_token_score(attention),
            "induction": induction_score(attention, self.period),
            "duplicate_token": duplicate_token_score(attention, self.period),
        }

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """Heat maps of the last measurement, layer by head."""
        last = rows[-1]
        maps: dict[HeadPanel, dict[str, list[float]]] = {p: {} for p in _PANELS.values()}
        for tag, value in last["values"].items():
            score, _, place = tag.removeprefix(f"{section}/").partition("/")
            label, _, _ = place.rpartition("/")  # the name of a module may contain a slash
            if label:  # without a label it is the best of all heads
                maps[_PANELS[score]].setdefault(label, []).append(value)
        return head_heatmaps(
            maps, title=f"Attention on repeated random tokens, step {last['step']}"
        )
