"""Finding the targets of a batch, and proving that the loss asks for them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.inspect.batch_targets import given_target, unshifted_labels
from lit_credit.inspect.capture import Point, capture
from lit_credit.inspect.exact_backward import exact_backward
from lit_credit.utils.compiled import submodule
from lit_credit.utils.nested import map_tensors

__all__ = ["HeldSlope", "prove_targets", "slope_at_held_logits", "targets_of"]

_MOST = 0.9
"""Share of rows that must agree; with smoothed labels a few rows may name another symbol."""


def targets_of(module: LightningModule, batch: Any) -> Tensor:
    """The correct symbols of a batch, (N,) or (N, T), below 0 where there is none.

    For a rule these are ``module.task.target(batch)``. Otherwise they are ``target``, ``labels``,
    ``label`` or ``y`` of a mapping, or the second item of a sequence. For distributions, the
    likeliest symbol is correct. Labels that repeat the mapping's ``input_ids`` belong to a causal
    model of Hugging Face, which shifts them itself: then the next label is correct.

    Raises:
        MisconfigurationException: if the batch has no targets of these kinds.
    """
    target = given_target(module, batch)
    if target is None:
        raise MisconfigurationException(
            f"HeadAttribution found no target in the batches of {type(module).__name__}, which are "
            f"{type(batch).__name__}. Let them be (x, y, ...), or mappings with one of 'target', "
            "'labels', 'label', 'y'."
        )
    if target.is_floating_point():
        return target.argmax(-1)
    return unshifted_labels(target, batch)


def prove_targets(
    chunk: Chunk, unembedding: str, picked: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """Check that the loss asks the logits of an unembedding for the targets of the batch.

    A step along the negative gradient raises the target's logit: for the cross-entropy the gradient
    is softmax minus one-hot. If the sign does not show this, as with smoothed labels, the rows
    exchange their targets: the gradient must change in favour of the new targets.

    Args:
        chunk: a few rows.
        unembedding: name of the ``nn.Linear`` that makes the logits.
        picked: maps logits (..., V) to (M, V), the logits that belong to targets.

    Returns:
        Each proved statement, with its error.

    Raises:
        MisconfigurationException: if the loss does not depend on these logits, or has other
            targets.
    """
    module, batch = chunk.module, chunk.batch
    target = targets_of(module, batch).flatten()
    slope, logits = _slope(chunk, unembedding, picked)
    size = slope.abs().amax(-1)
    asked = (target.to(size.device) >= 0) & (size > 1e-3 * size.amax()) & slope.isfinite().all(-1)
    if size.isnan().any():
        return {f"not proved: targets of {unembedding!r}, whose logits are not finite": math.nan}
    if not asked.any():
        raise MisconfigurationException(
            f"HeadAttribution: the loss of {type(module).__name__} does not depend on what "
            f"{unembedding!r} returns for rows with a target. Set `unembedding` to the nn.Linear "
            "that makes the logits of the loss."
        )
    rows, target = slope[asked], target.to(size.device)[asked]
    wrong = (rows.argmin(-1) != target).double().mean().item()
    if wrong > 0 and (wrong > 1 - _MOST or not _like_cross_entropy(rows)):
        exchanged = None if _like_cross_entropy(rows) else _exchanged(module, batch)
        if exchanged is not None:
            other = targets_of(module, exchanged).flatten().to(size.device)[asked]
            change = rows - _slope(chunk.on(exchanged), unembedding, picked)[0][asked]
            differ = (other != target) & (other >= 0)
            if differ.any() and change[differ].abs().amax() > 0:
                named = change[differ].argmin(-1)
                wrong = (named != target[differ]).double().mean().item()
            else:
                wrong = 1.0
    if wrong > 1 - _MOST:
        raise MisconfigurationException(
            f"HeadAttribution: the loss of {type(module).__name__} asks {unembedding!r} for other "
            f"symbols than the targets of the batch ({100 * wrong:.0f} % of the rows of the probe "
            "differ), as of a net with two heads, or labels that the loss shifts. Set "
            "`unembedding` to the nn.Linear that is trained on these targets."
        )
    return {f"the loss asks {unembedding!r} for the targets": wrong, **_scale(rows, logits[asked])}


class HeldSlope(NamedTuple):
    """The slope of the loss at held logits, and these logits."""

    slope: Tensor
    logits: Tensor


def slope_at_held_logits(chunk: Chunk, unembedding: str, logits: Tensor | None = None) -> HeldSlope:
    """The slope dL / d logits, with the output of an unembedding held at given logits.

    Args:
        chunk: a few rows.
        unembedding: name of the ``nn.Linear`` that makes the logits.
        logits: the given logits; None takes the output itself.
    """
    held: list[Tensor] = []

    def hold(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        held.append((output if logits is None else logits).detach().clone().requires_grad_())
        return held[-1]

    with torch.enable_grad(), exact_backward(chunk.module):
        handle = submodule(chunk.module, unembedding).register_forward_hook(hold)
        try:
            loss = chunk.loss()
        finally:
            handle.remove()
        (slope,) = torch.autograd.grad(loss, held[-1:], allow_unused=True)
    return HeldSlope(torch.zeros_like(held[-1]) if slope is None else slope, held[-1].detach())


def _slope(
    chunk: Chunk, unembedding: str, picked: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The slope dL / d logits and the logits, (M, V)."""
    point, module = Point(unembedding, "output"), chunk.module
    with torch.enable_grad(), exact_backward(module), capture(module, [point]) as passed:
        loss = chunk.loss()
    logits = passed[point]
    gradient = None
    if loss.requires_grad:
        (gradient,) = torch.autograd.grad(loss, logits, allow_unused=True)
    logits = logits.detach()
    gradient = torch.zeros_like(logits) if gradient is None else gradient
    return picked(gradient).float(), picked(logits).float()


def _like_cross_entropy(slope: Tensor) -> bool:
    """Whether exactly one logit of each row has a negative slope, so that it should rise."""
    return bool(((slope < 0).sum(-1) == 1).all())


def _exchanged(module: LightningModule, batch: Any) -> Any:
    """The batch with the targets of other rows; None if the targets are not part of the batch."""
    given, replaced = given_target(module, batch), []

    def exchange(x: Tensor) -> Tensor:
        if x is not given:
            return x
        replaced.append(x)
        return x.roll(1, 0)

    changed = map_tensors(batch, exchange)
    return changed if replaced else None


def _scale(slope: Tensor, logits: Tensor) -> dict[str, float]:
    """Statement about the factor of logits before the softmax, if the loss is a cross-entropy."""
    if not _like_cross_entropy(slope) or slope.shape[-1] < 3:
        return {}
    others = slope > 1e-6 * slope.abs().amax(-1, keepdim=True)
    log = slope.clamp(min=1e-38).log()
    count = others.sum(-1, keepdim=True).clamp(min=1)
    y, x = (
        (z.where(others, 0.0) - z.where(others, 0.0).sum(-1, keepdim=True) / count).where(
            others, 0.0
        )
        for z in (log, logits)
    )
    if not x.any():
        return {}
    factor = float((x * y).sum() / x.square().sum())
    error = float((y - factor * x).norm() / y.norm().clamp(min=1e-30))
    if error > 0.05:
        return {}
    times = "" if abs(factor - 1) < 0.02 else f"{factor:.3g} times "
    return {f"the loss is a cross-entropy of {times}these logits": error}
