"""What each head adds to the logits of a batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.head_targets import targets_of
from lit_credit.functional import logit_attribution, through_frozen_norm
from lit_credit.utils.attention import recorded_attention
from lit_credit.utils.attention_check import check_recorded
from lit_credit.utils.capture import Point, capture
from lit_credit.utils.compiled import submodule
from lit_credit.utils.final_norm import find_final_norm, norm_names
from lit_credit.utils.head_outputs import head_outputs, head_points
from lit_credit.utils.head_weights import AttentionHeads, read_heads
from lit_credit.utils.norm_forms import norm_epsilon, norm_form

__all__ = ["HeadLogits", "Reading", "head_logits"]

_SIDES: tuple[Literal["input"], Literal["output"]] = ("input", "output")

# Legend: M samples (and positions), H heads of one attention, d features, N symbols.


class HeadLogits(NamedTuple):
    """Of the samples that have a target."""

    heads: dict[str, Tensor]
    """Name of an attention to what its heads add, (H, M, N)."""
    logits: Tensor
    """(M, N), of the whole net."""
    target: Tensor
    """(M,)."""
    reading: "Reading"
    """How they are read off the stream."""


@torch.no_grad()
def head_logits(
    chunk: Chunk,
    units: Sequence[str] | None,
    unembedding: str,
    position: int,
) -> HeadLogits:
    """Run the module's loss on a chunk, and take the logits apart.

    Args:
        chunk: rows of the probe.
        units: attention modules, None takes all.
        unembedding: name of the ``nn.Linear`` that makes the logits.
        position: the one that predicts, where there is one target a sample.

    Raises:
        MisconfigurationException: if the unembedding did not run, or shapes do not belong together.
    """
    module = chunk.module
    layers, norms = read_heads(module, units, proved_later=True), norm_names(module)
    points = [Point(unembedding, "input"), Point(unembedding, "output")]
    points += [Point(name, side) for name in norms for side in _SIDES]
    points += [point for layer in layers for point in head_points(module, layer)]
    with recorded_attention(module) as calls, capture(module, points) as passed:
        chunk.loss()
    check_recorded(module, calls)
    if points[0] not in passed or points[1] not in passed:
        raise MisconfigurationException(
            f"HeadAttribution: {unembedding!r} did not run in the forward pass of the probe. Set "
            "`unembedding` to the nn.Linear that makes the logits."
        )
    target = targets_of(module, chunk.batch).to(passed[points[1]].device)
    reading = Reading(module, unembedding, passed, norms, position, per_sample=target.ndim == 1)
    keep = target.flatten() >= 0
    found = {}
    for layer in layers:
        added = head_outputs(module, layer, calls, passed)
        found[layer.name] = reading.of_heads(layer, added)[:, keep]
    logits = reading.picked(passed[points[1]])
    if len(logits) != len(keep):
        raise MisconfigurationException(
            f"HeadAttribution: {unembedding!r} made logits {tuple(passed[points[1]].shape)}, but "
            f"targets have shape {tuple(target.shape)}, expected one for each position or for each "
            "sample. Set `unembedding` to the nn.Linear that makes the logits."
        )
    if not keep.any():
        raise MisconfigurationException("HeadAttribution: no row of the probe has a target.")
    return HeadLogits(found, logits[keep], target.flatten()[keep], reading)


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
        """Logits (H, M, N) of what heads add, (H, N, T, d)."""
        read = self.passed[Point(self.unembedding, "input")]
        parts = self.picked(added)
        whole = self.picked(read)
        if parts.shape[1:] != whole.shape:
            raise MisconfigurationException(
                f"HeadAttribution: heads of {layer.name!r} add {tuple(added.shape)} (H, N, T, d), "
                f"but {self.unembedding!r} reads {tuple(read.shape)}, which is another stream. "
                "Choose `units` whose output is added to what the unembedding reads, batch first."
            )
        weight = self.module.get_submodule(self.unembedding).weight
        if not isinstance(weight, Tensor):
            raise MisconfigurationException(f"{self.unembedding!r} has no weight.")
        return logit_attribution(self._normed(parts).to(weight.dtype), weight)

    @property
    def stream(self) -> Point:
        """What heads are said to add to: the input of the final norm, or of the unembedding."""
        return Point(self._norm or self.unembedding, "input")

    @cached_property
    def _norm(self) -> str | None:
        read = self.passed[Point(self.unembedding, "input")]
        return find_final_norm(self.norms, read, self.passed, self.position)

    def _normed(self, parts: Tensor) -> Tensor:
        if (name := self._norm) is None:
            return parts
        norm = submodule(self.module, name)
        stream, normed = (self.picked(self.passed[Point(name, side)]) for side in _SIDES)
        form = norm_form(norm, stream, normed)
        if form is None:
            raise MisconfigurationException(
                f"HeadAttribution: {name!r} ({type(norm).__name__}) before the unembedding is no "
                "LayerNorm and no RMSNorm that multiplies by its weight, so heads cannot be taken "
                "through it."
            )
        return through_frozen_norm(
            parts, stream, form.gain(norm), norm_epsilon(norm), centred=form.centred
        )
