"""Proving that heads add to the logits what ``HeadAttribution`` says."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.heads.head_logits import Reading, head_logits
from lit_credit.callbacks.heads.head_targets import prove_targets, slope_at_held_logits, targets_of
from lit_credit.inspect.attention.direct_path import added_to_outputs, arrivals
from lit_credit.inspect.attention.frozen_forward import plain_attention_path
from lit_credit.inspect.attention.head_weights import read_heads
from lit_credit.inspect.attention.proof import ProvedHeads, prove_heads, tolerance, writing_points

__all__ = ["prove_attribution"]


def prove_attribution(
    chunk: Chunk,
    units: Sequence[str] | None,
    unembedding: str,
    position: int,
) -> dict[str, float]:
    """Check on a few rows all assumptions of :func:`head_logits`.

    The heads as read give the output of their attention; this output arrives unchanged in front of
    the final norm; and the loss asks the unembedding for the targets.

    Args:
        chunk: rows of the probe.
        units: attention modules; None takes all.
        unembedding: name of the ``nn.Linear`` that makes the logits.
        position: the position that predicts, if there is one target per sample.

    Returns:
        Each proved statement, with its largest relative error.

    Raises:
        MisconfigurationException: if one of the assumptions fails.
    """
    module, few = chunk.module, chunk.few()
    if not (targets_of(module, few.batch) >= 0).any():
        few = replace(chunk, share=1.0)
    found = head_logits(few, units, unembedding, position)
    for _, added in found.added():  # refuses heads that write elsewhere, and an unknown norm
        found.read(added, slice(1))
    reading = found.reading
    layers = read_heads(module, units, proved_later=True)
    proved = prove_heads(module, layers, few.forward, who="HeadAttribution", scores=False)
    arrived = _arrival(few, reading, proved)
    return {
        **proved.statements,
        **arrived,
        **prove_targets(few, unembedding, reading.picked),
        **_alone(few, unembedding, proved),
    }


def _alone(few: Chunk, unembedding: str, proved: ProvedHeads) -> dict[str, float]:
    """Check that the loss uses these logits alone; a mean over two output heads would not.

    The logits are held and all attention is disturbed. The slope of the loss at the logits must
    not change.
    """
    module, generator = few.module, torch.Generator().manual_seed(0)
    noise = {}
    for name, point in writing_points(module, proved).items():
        written = proved.runs[name].written[0]
        size = written.float().square().mean().sqrt().clamp(min=1e-6).cpu()
        noise[point] = (size * torch.randn(written.shape, generator=generator)).to(written)
    before = slope_at_held_logits(few, unembedding)
    with plain_attention_path(), added_to_outputs(module, noise):
        after = slope_at_held_logits(few, unembedding, before.logits)
    error = float((after.slope - before.slope).norm() / before.slope.norm().clamp(min=1e-30))
    if not error <= tolerance(before.logits):
        raise MisconfigurationException(
            f"HeadAttribution: the loss of {type(module).__name__} does not take the logits of "
            f"{unembedding!r} alone: its slope at them changes by {error:.2g} where other parts of "
            "the net change, as where the logits of two heads are averaged. So the logits of the "
            "net are not those that heads add to here. Leave HeadAttribution out, or give it a "
            "`loss` of these logits."
        )
    return {f"the loss takes the logits of {unembedding!r} alone": error}


def _arrival(few: Chunk, reading: Reading, proved: ProvedHeads) -> dict[str, float]:
    """Check that the outputs of all attention arrive at the stream."""
    module = few.module
    points = writing_points(module, proved)
    attention = {point: name for name, point in points.items()}

    def of_added(point: str, added: Tensor) -> Tensor:
        rows = added[None] if added.dim() == 2 else added
        turned = proved.found[attention[point]].transposed
        return reading.picked(rows.transpose(0, 1) if turned else rows.flatten(1, -2))

    written = {points[name]: proved.runs[name].written[0] for name in points}
    times = {points[name]: len(proved.runs[name].written) for name in points}
    stream = reading.stream
    errors = arrivals(
        module,
        few.forward,
        written,
        times,
        stream,
        of_added,
        reading.picked,
    )
    place = "the final norm" if stream.module != reading.unembedding else "the unembedding"
    limit = tolerance(reading.passed[stream])
    for point, (error, multiple) in errors.items():
        if point and not error <= limit:
            raise MisconfigurationException(
                f"HeadAttribution: what the heads of {attention[point]!r} add does not arrive as "
                f"it is in front of {place}, {stream.module!r} (relative error {error:.2g}, "
                f"nearest to {multiple:.2g} times what they add): a norm behind the attention, a "
                "gain, a gate, a multiplier or pooling lies between, or they write to another "
                "stream. So the logits that they add directly are not known. Choose `units` whose "
                "output is added to that stream, or leave HeadAttribution out."
            )
    return {f"what heads add arrives as it is in front of {stream.module!r}": errors[""][0]}
