"""What each head adds to the logits of a batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn.functional import pad

from lit_credit.functional import logit_attribution, through_frozen_norm
from lit_credit.utils.attention import recorded_attention
from lit_credit.utils.attention_check import check_recorded
from lit_credit.utils.batch_loss import batch_loss
from lit_credit.utils.capture import Point, capture
from lit_credit.utils.compiled import submodule
from lit_credit.utils.final_norm import find_final_norm, norm_names
from lit_credit.utils.head_outputs import head_outputs, head_points
from lit_credit.utils.head_weights import AttentionHeads, read_heads
from lit_credit.utils.nested import first_tensor

__all__ = ["HeadLogits", "head_logits", "targets_of"]

# Legend: M samples (and positions), H heads of one attention, d features, N symbols.


class HeadLogits(NamedTuple):
    """Of the samples that have a target."""

    heads: dict[str, Tensor]
    """Name of an attention to what its heads add, (H, M, N)."""
    logits: Tensor
    """(M, N), of the whole net."""
    target: Tensor
    """(M,)."""


def targets_of(module: LightningModule, batch: Any) -> Tensor:
    """The correct symbols of a batch, (N,) or (N, T), below 0 where there is none.

    That is ``module.task.target(batch)`` of a rule; else of a mapping its ``target``, ``labels``,
    ``label`` or ``y``, and of a sequence the second item. Of distributions it is the likeliest.
    Labels that repeat the mapping's ``input_ids`` are those of Hugging Face's causal models, which
    shift them themselves: correct is the next one.

    Raises:
        MisconfigurationException: if there is nothing of this kind.
    """
    task = getattr(module, "task", None)
    found: Any = None
    if callable(getattr(task, "target", None)):
        found = task.target(batch)  # type: ignore[union-attr]
    elif isinstance(batch, Mapping):
        names = ("target", "labels", "label", "y")
        found = next((batch[name] for name in names if name in batch), None)
    elif isinstance(batch, Sequence) and len(batch) > 1:
        found = batch[1]
    target = first_tensor(found)
    if target is None:
        raise MisconfigurationException(
            f"HeadAttribution found no target in the batches of {type(module).__name__}, which are "
            f"{type(batch).__name__}. Let them be (x, y, ...), or mappings with one of 'target', "
            "'labels', 'label', 'y'."
        )
    if target.is_floating_point():
        return target.argmax(-1)
    tokens = batch.get("input_ids") if isinstance(batch, Mapping) else None
    return _next(target) if _repeats(target, tokens) else target


def _repeats(labels: Tensor, tokens: Any) -> bool:
    """Whether labels (N, T) are the tokens themselves, wherever there is a label."""
    if not isinstance(tokens, Tensor) or labels.ndim != 2 or labels.shape != tokens.shape:
        return False
    return bool(((labels == tokens) | (labels < 0)).all())


def _next(labels: Tensor) -> Tensor:
    return pad(labels[:, 1:], (0, 1), value=-100)


@torch.no_grad()
def head_logits(
    module: LightningModule,
    batch: Any,
    units: Sequence[str] | None,
    unembedding: str,
    position: int,
) -> HeadLogits:
    """Run the module's loss on a batch, and take the logits apart.

    Args:
        module: the module.
        batch: the batch.
        units: attention modules, None takes all.
        unembedding: name of the ``nn.Linear`` that makes the logits.
        position: the one that predicts, where there is one target a sample.

    Raises:
        MisconfigurationException: if the unembedding did not run, or shapes do not belong together.
    """
    layers, norms = read_heads(module, units), norm_names(module)
    points = [Point(unembedding, "input"), Point(unembedding, "output")]
    points += [Point(name, side) for name in norms for side in ("input", "output")]
    points += [point for layer in layers for point in head_points(module, layer)]
    with recorded_attention(module) as calls, capture(module, points) as passed:
        batch_loss(module, batch)
    check_recorded(module, calls)
    if points[0] not in passed or points[1] not in passed:
        raise MisconfigurationException(
            f"HeadAttribution: {unembedding!r} did not run in the forward pass of the probe. Set "
            "`unembedding` to the nn.Linear that makes the logits."
        )
    target = targets_of(module, batch).to(passed[points[1]].device)
    reading = _Reading(module, unembedding, passed, norms, position, per_sample=target.ndim == 1)
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
    return HeadLogits(found, logits[keep], target.flatten()[keep])


@dataclass(frozen=True, eq=False)
class _Reading:
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
        return logit_attribution(self._normed(parts, whole).to(weight.dtype), weight)

    def _normed(self, parts: Tensor, whole: Tensor) -> Tensor:
        read = self.passed[Point(self.unembedding, "input")]
        name = find_final_norm(self.norms, read, self.passed, self.position)
        if name is None:
            return parts
        norm = submodule(self.module, name)
        gain, bias = (getattr(norm, field, None) for field in ("weight", "bias"))
        eps = getattr(norm, "eps", getattr(norm, "variance_epsilon", None)) or 0.0
        stream = self.picked(self.passed[Point(name, "input")])
        centred = isinstance(norm, torch.nn.LayerNorm)

        def through(x: Tensor) -> Tensor:
            return through_frozen_norm(x, stream, gain, eps, centred=centred)

        again = through(stream) + (0.0 if bias is None else bias)
        if not torch.allclose(again, whole, rtol=1e-3, atol=1e-4):
            raise MisconfigurationException(
                f"HeadAttribution: {name!r} ({type(norm).__name__}) before the unembedding is no "
                "LayerNorm and no RMSNorm that multiplies by its weight, so heads cannot be taken "
                "through it."
            )
        return through(parts)
