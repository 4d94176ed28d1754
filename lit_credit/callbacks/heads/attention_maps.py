"""The diagnostic ``AttentionMaps``: maps and entropies of attention heads."""

from collections.abc import Sequence
from typing import Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.probe import ProbeDiagnostic
from lit_credit.callbacks.base.values import over_samples
from lit_credit.callbacks.heads.attention import (
    attention_by_label,
    blocks_of,
    head_tag,
    seen_as_softmax,
    softmax_or_nan,
)
from lit_credit.callbacks.heads.attention_grid import attention_grid
from lit_credit.callbacks.heads.attention_proof import prove_attention
from lit_credit.functional import attention_entropy
from lit_credit.headlines import Headline, Panel
from lit_credit.inspect.attention.recording import AttentionCall, recorded_attention
from lit_credit.inspect.batch_loss import LossFunction
from lit_credit.runs.history import Row

__all__ = ["AttentionMaps"]


class AttentionMaps(ProbeDiagnostic):
    """The attention of every module and head: images of the probe's first sample, and entropies.

    Logs ``attention/entropy/<module>/H00`` ..: the entropy in nats, the mean over the samples and
    queries of the probe, without queries that may see no key; NaN if the attention is not a
    softmax. Keys that carry nothing of the input, such as learned sinks, count as keys. If they are
    the first or last keys, ``attention/sink/<module>/H00`` .. is their share of the attention. The
    figure shows the first sample of the last measurement, one map per head. Colours show the
    weight over that of uniform attention, on a logarithmic scale that all heads share.

    Costs one forward on ``n_samples`` rows, and holds A of all modules for the rows of a chunk: 4 n
    H T S bytes each in float32. See :class:`lit_credit.callbacks.ProbeDiagnostic` for the other
    arguments.

    Args:
        draw_each: draw the figure at every measurement, not only at the end. TensorBoard keeps the
            figure of every step, the folder keeps the last one.
        n_samples: rows of the probe, the first rows of the data; None takes 16, or all if there are
            fewer.
        units: names or patterns of the attention modules; None takes all that are seen.

    Raises:
        ValueError: if one of ``units`` matches no attention that was seen.
        MisconfigurationException: before the first step, if no attention is seen, or if its axes
            are not heads, queries and keys.

    Example::

        trainer = Trainer(callbacks=[AttentionMaps(units=["encoder.layers.*.self_attn"])])
    """

    name = "attention_maps"
    section = "attention"
    needs_loss = False
    charts = ("entropy",)
    headline = (
        Headline(
            "attention_entropy",
            "entropy",
            layers="mean",
            form=".2f",
            unit="nats",
            panel=Panel("Entropy of attention", "nats, mean over heads"),
        ),
    )
    steps_of_a_batch = 0.5
    default_n_samples = 16

    def __init__(
        self,
        *,
        draw_each: bool = False,
        n_samples: int | None = None,
        chunk_size: int | None = None,
        units: list[str] | None = None,
        loss: LossFunction | None = None,
        probe: Literal["val", "train"] = "val",
        mode: Literal["eval", "train"] = "eval",
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figure: bool = True,
    ) -> None:
        super().__init__(
            n_samples=n_samples,
            chunk_size=chunk_size,
            units=units,
            loss=loss,
            probe=probe,
            mode=mode,
            every_n_epochs=every_n_epochs,
            every_n_steps=every_n_steps,
            figure=figure,
        )
        self.draw_each = draw_each
        self._maps: dict[str, Tensor] = {}
        self._sinks: dict[str, list[int]] = {}

    def prove(self, chunk: Chunk) -> dict[str, float]:
        """Check that the axes of A are heads, queries and keys; find the keys that are sinks."""
        with torch.no_grad():
            proof = prove_attention(self, chunk.module, chunk.few().forward, self.units)
        self._sinks = {label: sorted(keys) for label, keys in proof.sinks.items() if keys}
        return proof.proved

    def reset(self) -> None:
        """Forget the chunks; the maps of the last measurement stay until there are new maps."""
        super().reset()
        self._is_first = True
        self._sound: dict[str, Tensor] = {}

    def update(self, chunk: Chunk) -> None:
        """Add entropies and shares (N, H, T) of a chunk; keep the maps of the first sample."""
        module = chunk.module
        with torch.no_grad(), recorded_attention(module) as calls:
            chunk.forward()
        seen = attention_by_label(module, calls, self.units)
        for label, call in seen.items():
            weights = softmax_or_nan(call.weights, call.allowed)
            sound = seen_as_softmax(weights)
            for some in blocks_of(weights):
                allowed = None if call.allowed is None else call.allowed[some]
                self.gathered.add(f"entropy/{label}", attention_entropy(weights[some], allowed))
                if keys := self._sinks.get(label):
                    self.gathered.add(f"sink/{label}", weights[some][..., keys].sum(-1))
            self._sound[label] = sound & self._sound.get(label, sound)
        if self._is_first:
            self._maps = {label: _first_map(call) for label, call in seen.items()}
            self._is_first = False

    def compute(self) -> dict[str, float]:
        """``entropy/<module>/H..``, and ``sink/<module>/H..`` if there are sinks."""
        found = {}
        for tag, values in self.gathered.items():
            # A head that is not a softmax in one chunk is undefined in all chunks.
            sound = self._sound[tag.partition("/")[2]]
            known = values.masked_fill(~sound[..., None], torch.nan)
            for index, head in enumerate(known.unbind(1)):
                found[f"{tag}/{head_tag(index)}"] = over_samples(head.flatten()).mean
        return found

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """Maps of the last measurement, layer by head."""
        if not self._maps:  # a resumed run that had ended: nothing was measured
            return None
        title = f"Attention of the probe's first sample, step {rows[-1]['step']}"
        return attention_grid(self._maps, title=title)


def _first_map(call: AttentionCall) -> Tensor:
    """A (H, T, S) of the first sample, NaN where a key is masked."""
    first = call.weights[0].float()
    if call.allowed is not None:
        first = first.masked_fill(~call.allowed.expand_as(call.weights)[0], torch.nan)
    return first.cpu()
