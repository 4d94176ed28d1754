"""Computing what each head adds to the logits of a batch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.heads.head_targets import targets_of
from lit_credit.functional import logit_attribution, through_frozen_norm
from lit_credit.inspect.attention.final_norm import find_final_norm, norm_names
from lit_credit.inspect.attention.head_outputs import head_outputs, head_points
from lit_credit.inspect.attention.head_weights import AttentionHeads, read_heads
from lit_credit.inspect.attention.norm_forms import NormForm, norm_epsilon, norm_form
from lit_credit.inspect.attention.recording import AttentionCall, recorded_attention
from lit_credit.inspect.attention.unseen import check_recorded
from lit_credit.inspect.capture import Point, capture
from lit_credit.utils.compiled import submodule

__all__ = ["HeadLogits", "Reading", "head_logits"]

_SIDES: tuple[Literal["input"], Literal["output"]] = ("input", "output")

# Legend: M samples (and positions), H heads of one attention, d features, N symbols.


@dataclass(frozen=True, eq=False)
class HeadLogits:
    """The contributions of heads on one chunk, and the logits of the whole net.

    Attributes:
        layers: the heads of each attention.
        logits: (M, N), logits of the chosen samples, which have a target.
        target: (M,), their targets.
        rows: (M,), their places among all samples and positions.
        n_targets: number of samples and positions with a target, before the choice.
        reading: how logits are read off the stream.
        calls: the recorded attention.
    """

    layers: list[AttentionHeads]
    logits: Tensor
    target: Tensor
    rows: Tensor
    n_targets: int
    reading: "Reading"
    calls: list[AttentionCall]

    def added(self) -> Iterator[tuple[str, Tensor]]:
        """For each attention in turn, its name and what its heads add to the stream, (H, M, d)."""
        for layer in self.layers:
            reading = self.reading
            outputs = head_outputs(reading.module, layer, self.calls, reading.passed)
            yield layer.name, reading.of_heads(layer, outputs)[:, self.rows]

    def read(self, added: Tensor, some: slice = slice(None)) -> Tensor:
        """The logits (H, m, N) of the contributions ``added`` (H, M, d), for some samples."""
        return self.reading.logits(added[:, some], self.rows[some])


@torch.no_grad()
def head_logits(
    chunk: Chunk,
    units: Sequence[str] | None,
    unembedding: str,
    position: int,
    most: int | None = None,
) -> HeadLogits:
    """Run the module's loss on a chunk, and split the logits by heads.

    Args:
        chunk: rows of the probe.
        units: attention modules; None takes all.
        unembedding: name of the ``nn.Linear`` that makes the logits.
        position: the position that predicts, if there is one target per sample.
        most: number of samples and positions to keep, evenly spread; None keeps all.

    Raises:
        MisconfigurationException: if the unembedding did not run, or shapes do not match.
    """
    module = chunk.module
    layers, norms = read_heads(module, units, proved_later=True), norm_names(module)
    points = [Point(unembedding, "input"), Point(unembedding, "output")]
    points += [Point(name, side) for name in norms for side in _SIDES]
    points += [point for layer in layers for point in head_points(module, layer)]
    with recorded_attention(module) as calls, capture(module, points) as passed:
        chunk.forward()
    check_recorded(module, calls)
    if points[0] not in passed or points[1] not in passed:
        raise MisconfigurationException(
            f"HeadAttribution: {unembedding!r} did not run in the forward pass of the probe. Set "
            "`unembedding` to the nn.Linear that makes the logits."
        )
    target = targets_of(module, chunk.batch).to(passed[points[1]].device)
    reading = Reading(module, unembedding, passed, norms, position, per_sample=target.ndim == 1)
    logits = reading.picked(passed[points[1]])
    shape, target = tuple(target.shape), target.flatten()
    if len(logits) != len(target):
        raise MisconfigurationException(
            f"HeadAttribution: {unembedding!r} made logits {tuple(passed[points[1]].shape)}, but "
            f"targets have shape {shape}, expected one for each position or for each "
            "sample. Set `unembedding` to the nn.Linear that makes the logits."
        )
    rows = (target >= 0).nonzero()[:, 0]
    n_targets = len(rows)
    if most is not None and n_targets > most:
        rows = rows[torch.linspace(0, n_targets - 1, most, device=rows.device).long()]
    return HeadLogits(layers, logits[rows], target[rows], rows, n_targets, reading, calls)


@dataclass(frozen=True, eq=False)
class Reading:
    """How logits are read off the stream, on one batch."""

    module: LightningModule
    unembedding: str
    passed: Mapping[Point, Tensor]
    norms: list[str]
    position: int
    per_sample: bool

    def picked(self, x: Tensor) -> Tensor:
        """(..., N, T, d) or (N, d) to (..., M, d): the position that predicts, or all."""
        if x.ndim < 3:
            return x
        return x[..., self.position, :] if self.per_sample else x.flatten(-3, -2)

    def of_heads(self, layer: AttentionHeads, added: Tensor) -> Tensor:
        """Contributions of heads (H, N, T, d) at the positions that are read: (H, M, d)."""
        read = self.passed[Point(self.unembedding, "input")]
        parts = self.picked(added)
        whole = self.picked(read)
        if parts.shape[1:] != whole.shape:
            raise MisconfigurationException(
                f"HeadAttribution: heads of {layer.name!r} add {tuple(added.shape)} (H, N, T, d), "
                f"but {self.unembedding!r} reads {tuple(read.shape)}, which is another stream. "
                "Choose `units` whose output is added to what the unembedding reads, batch first."
            )
        return parts

    def logits(self, parts: Tensor, rows: Tensor) -> Tensor:
        """Logits (H, m, N) of parts of the stream (H, m, d), at the places ``rows``."""
        weight = self.module.get_submodule(self.unembedding).weight
        if not isinstance(weight, Tensor):
            raise MisconfigurationException(f"{self.unembedding!r} has no weight.")
        return logit_attribution(self._normed(parts, rows).to(weight.dtype), weight)

    @property
    def stream(self) -> Point:
        """The stream that heads add to: the input of the final norm, or of the unembedding."""
        return Point(self._norm or self.unembedding, "input")

    @cached_property
    def _norm(self) -> str | None:
        read = self.passed[Point(self.unembedding, "input")]
        return find_final_norm(self.norms, read, self.passed, self.position)

    @cached_property
    def _form(self) -> NormForm:
        """The form of the final norm."""
        norm = submodule(self.module, self._norm or "")
        stream, normed = (self.picked(self.passed[Point(self._norm or "", s)]) for s in _SIDES)
        form = norm_form(norm, stream, normed)
        if form is None:
            raise MisconfigurationException(
                f"HeadAttribution: {self._norm!r} ({type(norm).__name__}) before the unembedding "
                "is no LayerNorm and no RMSNorm that multiplies by its weight, so heads cannot be "
                "taken through it."
            )
        return form

    def _normed(self, parts: Tensor, rows: Tensor) -> Tensor:
        if self._norm is None:
            return parts
        norm, form = submodule(self.module, self._norm), self._form
        stream = self.picked(self.passed[Point(self._norm, "input")])[rows]
        gain, eps = form.gain(norm), norm_epsilon(norm)
        return through_frozen_norm(parts, stream, gain, eps, centred=form.centred)
