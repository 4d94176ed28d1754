"""Proving that circuits of heads as read are circuits of the net."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.inspect.attention.direct_path import arrivals
from lit_credit.inspect.attention.head_weights import attention_names
from lit_credit.inspect.attention.heads import AttentionHeads
from lit_credit.inspect.attention.norms_in_front import (
    NormInFront,
    find_norms_in_front,
    norm_points,
)
from lit_credit.inspect.attention.proof import ProvedHeads, prove_heads, tolerance, writing_points
from lit_credit.inspect.attention.score_ways import ScoreWay, with_ways
from lit_credit.inspect.attention.streams import side_by_side, streams
from lit_credit.inspect.capture import Point, capture

__all__ = ["PROVED_ON", "ProvedCircuits", "prove_circuits"]

_WHO = "CircuitMatching"
PROVED_ON = 4
_LEAST = 1e-2
"""Smallest factor with which an output may arrive and still count as arrived."""


@dataclass(frozen=True)
class ProvedCircuits:
    """The proved statements, and the norms and rotations that were found.

    Attributes:
        statements: proved statements with their largest relative error; unproved ones with NaN.
        norms: name of an attention to the norm in front of it; None if no forward pass ran.
        ways: name of an attention to the norms and rotation of its queries and keys, if they differ
            from those that were read.
    """

    statements: dict[str, float]
    norms: dict[str, NormInFront] | None = field(default=None)
    ways: dict[str, ScoreWay] = field(default_factory=dict)

    def with_gains(
        self, module: LightningModule, layers: Sequence[AttentionHeads]
    ) -> list[AttentionHeads]:
        """The heads with the norms and rotations that were found, unchanged if no pass ran."""
        layers = with_ways(module, layers, self.ways)
        if self.norms is None:
            return layers
        return [
            layer
            if layer.name not in self.norms
            else replace(layer, norm_gain=self.norms[layer.name].gain(module))
            for layer in layers
        ]


def prove_circuits(
    chunk: Chunk, layers: Sequence[AttentionHeads], fold_norm: bool, no_rows: str = ""
) -> ProvedCircuits:
    """Check on a few rows that pairs of heads as read are pairs of the net.

    The heads give the scores and the output of their attention; all attention lies one after the
    other in one stream; the norm in front of each attention is found. If the module's loss cannot
    be run on a probe, nothing is proved; a warning and the statement say so.

    Args:
        chunk: rows of the data, of which a few are taken.
        layers: the heads of the module.
        fold_norm: whether gains are folded, for the statement.
        no_rows: why there are no rows; empty if there are rows.

    Raises:
        MisconfigurationException: if one of these statements fails.
    """
    module, few = chunk.module, chunk.few(PROVED_ON)
    try:
        if no_rows:
            raise MisconfigurationException(no_rows)
        with torch.no_grad():
            few.forward()
    except Exception as error:  # the user's code or data may raise anything
        said = str(error).splitlines()[0] if str(error) else ""
        reason = no_rows or f"{type(error).__name__}: {said}"
        if doubtful := next((layer for layer in layers if layer.doubt), None):
            raise MisconfigurationException(
                f"{_WHO}: the heads of {doubtful.name!r} cannot be read: {doubtful.doubt}, and no "
                f"forward pass can show how, as the loss could not be run on a probe "
                f"({reason[:200]}). Give the attention a method `head_weights()`, or choose others "
                "by `units`."
            ) from error
        rank_zero_warn(
            f"{_WHO}: heads as read are not proved to be those of {type(module).__name__}, whose "
            f"loss could not be run on a probe ({reason[:200]})."
        )
        return ProvedCircuits({"not proved: the loss could not be run on a probe": math.nan})

    with capture(module, norm_points(module, layers)) as passed:
        proved = prove_heads(module, layers, few.forward, who=_WHO)
    norms = find_norms_in_front(module, layers, proved.runs, passed)
    cuts = attention_names(module)
    groups = streams(module, few.forward, layers, proved.runs, cuts)
    if len(groups) > 1:
        raise _several(module, [(group[0], group[-1]) for group in groups], "in different streams")
    _check_order(module, layers, list(proved.runs))
    pair = side_by_side(module, few.forward, layers, proved.runs, cuts)
    if pair is not None:
        raise _several(module, [pair], "side by side")
    return ProvedCircuits(
        {
            **proved.statements,
            "all heads write to and read from one stream": 0.0,
            **_several_runs(proved),
            **_arrival(module, few.forward, proved, norms),
            **_folded(layers, norms, fold_norm),
        },
        norms,
        proved.ways,
    )


def _several_runs(proved: ProvedHeads) -> dict[str, float]:
    return {
        f"not proved: heads of {name!r} after the first of {len(runs.written)} runs": math.nan
        for name, runs in proved.runs.items()
        if len(runs.written) > 1
    }


def _arrival(
    module: LightningModule,
    run: Callable[[], object],
    proved: ProvedHeads,
    norms: Mapping[str, NormInFront],
) -> dict[str, float]:
    """Check that the outputs of earlier attention reach the last attention, up to a factor."""
    *writers, reader = proved.runs
    points = {n: p for n, p in writing_points(module, proved).items() if n in writers}
    if not points:
        return {}
    place = norms[reader].name if reader in norms else reader
    point = Point(place, "input")
    with capture(module, [point]) as passed:
        run()

    def of_added(_: str, added: Tensor) -> Tensor:
        """Bring samples and positions into the order of the stream."""
        turned = added.transpose(0, 1) if added.dim() == 3 else added
        stream = passed[point].shape if point in passed else added.shape
        fits = added.shape == stream or turned.shape != stream
        return added if fits else turned

    through = []
    try:
        errors = arrivals(
            module,
            run,
            {point: proved.runs[name].written[0] for name, point in points.items()},
            {point: len(proved.runs[name].written) for name, point in points.items()},
            point,
            of_added,
            lambda x: x,
        )
    except (MisconfigurationException, KeyError):  # passes differ, or nothing passed the point
        errors = {"": (math.nan, math.nan)}
    largest = 0.0
    for name, written in points.items():
        error, factor = errors.get(written, errors[""])
        # The part of the error that a factor does not explain.
        left = math.sqrt(max(error**2 - (factor - 1) ** 2, 0.0)) / max(abs(factor), 1e-12)
        if abs(factor) > _LEAST and left <= tolerance(proved.runs[name].written[0]):
            largest = max(largest, left)
        else:
            through.append(name)
    said = "the last attention reads directly what the others write, but for a factor"
    if not through:
        return {said: largest}
    more = f" and {len(through) - 3} more" if len(through) > 3 else ""
    some = ", ".join(map(repr, through[:3])) + more
    between = f"a norm, gain or layer lies between {some} and {reader!r}"
    return {f"not proved: {said}; {between}": math.nan}


def _check_order(
    module: LightningModule, layers: Sequence[AttentionHeads], ran: Sequence[str]
) -> None:
    expected = [layer.name for layer in layers if layer.name in ran]
    if expected != list(ran):
        first = next(a for a, b in zip(ran, expected, strict=True) if a != b)
        raise MisconfigurationException(
            f"{_WHO}: the attention of {type(module).__name__} runs in another order than it is "
            f"registered in ({first!r} is earlier), so that writing and reading heads would be "
            "exchanged. Register it in forward order, or choose by `units`."
        )


def _several(
    module: LightningModule, ends: Sequence[tuple[str, str]], how: str
) -> MisconfigurationException:
    shown = "; ".join(a if a == b else f"{a} .. {b}" for a, b in ends)
    return MisconfigurationException(
        f"{_WHO}: attention of {type(module).__name__} is {how}, so that one does not read what "
        f"another wrote: {shown}. Choose the attention of one stream, one after the other, by "
        "`units`."
    )


def _folded(
    layers: Sequence[AttentionHeads], norms: dict[str, NormInFront], fold_norm: bool
) -> dict[str, float]:
    """Statements about which gains are folded into the weights, by name."""
    if not fold_norm:
        return {"gains of norms are not folded, as `fold_norm` says": 0.0}
    found = {}
    for layer in layers:
        norm = norms.get(layer.name)
        known = layer.norm_gain is not None if norm is None else True
        name = "of the norm in front" if norm is None else f"of {norm.name!r}"
        what = f"gain {name} is folded into" if known else "no gain is folded into"
        found[f"{what} {layer.name!r}"] = 0.0
    return found
