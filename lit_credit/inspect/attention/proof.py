"""Proving numerically that heads as read reproduce the attention of the net."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lit_credit.inspect.attention.heads import AttentionHeads
from lit_credit.inspect.attention.projections import find_output
from lit_credit.inspect.attention.recompute import Reproduction, reproduce
from lit_credit.inspect.attention.recording import AttentionCall, recorded_attention
from lit_credit.inspect.attention.runs import HeadRuns, amplified, watched_heads
from lit_credit.inspect.attention.score_ways import ScoreWay, score_ways
from lit_credit.utils.compiled import submodule
from lit_credit.utils.names import shown_names
from lit_credit.utils.short_text import choice

__all__ = ["ProvedHeads", "calls_of", "prove_heads", "tolerance", "writing_points"]

_SPREAD = 12.0
"""Inputs are amplified to give scores this standard deviation, at which a cap on scores shows."""
_LARGEST_FACTOR = 1e3
_SURE = 0.05
"""Share of the tolerance: below this error no better way is searched for."""


@dataclass(frozen=True)
class ProvedHeads:
    """What a forward pass showed about the heads.

    Attributes:
        statements: each proved statement with its largest relative error; each unproved one with
            NaN.
        runs: what each attention read and wrote, in the order of their first runs.
        found: name of an attention that ran to the errors of its reproduction.
        ways: name of an attention to the norm and rotation of its queries and keys, if these differ
            from what was read; see :func:`lit_credit.inspect.attention.score_ways.with_ways`.
    """

    statements: dict[str, float]
    runs: dict[str, HeadRuns]
    found: dict[str, Reproduction]
    ways: dict[str, ScoreWay] = field(default_factory=dict)


def tolerance(tensor: Tensor) -> float:
    """The relative error that rounding may cause in the tensor's dtype."""
    return 0.05 if tensor.dtype in (torch.float16, torch.bfloat16) else 0.01


@torch.no_grad()
def prove_heads(
    module: nn.Module,
    layers: Sequence[AttentionHeads],
    run: Callable[[], object],
    *,
    who: str,
    scores: bool = True,
) -> ProvedHeads:
    """Check that heads as read give the attention scores and output that the module computes.

    The check uses the real inputs of each attention. It checks scores once more with these inputs
    multiplied, since scores near 0, as before training, hide a cap or a norm. If the scores differ,
    norms and rotations of queries and keys that a function may compute are tried.

    Args:
        module: the module.
        layers: its heads, from :func:`lit_credit.inspect.attention.head_weights.read_heads`.
        run: one forward pass on few rows, the same each time.
        who: the diagnostic, for the error.
        scores: also check the scores, not only the output for given attention weights.

    Raises:
        MisconfigurationException: if an attention differs, or no attention ran.
    """
    with recorded_attention(module) as calls, watched_heads(module, layers) as runs:
        run()
    if not any(layer.name in runs for layer in layers):
        raise MisconfigurationException(
            f"{who}: none of the attention whose heads were read ran on the probe: "
            f"{choice(shown_names(layer.name for layer in layers))}. Choose others by `units`."
        )
    found = {
        layer.name: reproduce(layer, runs[layer.name], calls_of(layer, calls))
        for layer in layers
        if layer.name in runs
    }
    statements: dict[str, float] = {}
    shown = [layer for layer in layers if layer.name in found and _finite(runs[layer.name])]
    for layer in layers:
        if layer not in shown:
            reason = "is not finite" if layer.name in found else "did not run"
            statements[f"not proved: heads of {layer.name!r}, which {reason} on the probe"] = (
                math.nan
            )
    if not shown:
        return ProvedHeads(statements, runs, found)
    again = _amplified(module, shown, run, runs, found) if scores else {}
    by_position: list[str] = []
    output, score, found_ways = [], [], _Ways()
    for layer in shown:
        seen = [_Pass(runs[layer.name], calls_of(layer, calls), found[layer.name])]
        seen += [again[layer.name]] if layer.name in again else []
        visible = bool(seen[0].calls)
        worst = max(p.found.output for p in seen)
        output.append(_checked(layer, worst, _OUTPUT, visible, who))
        if not scores or not visible:  # the check of the output covers the scores
            continue
        error, apart = _score_error(layer, [p.found for p in seen])
        if error > tolerance(layer.query):
            error, apart = found_ways.search(module, layer, seen) or (error, apart)
        by_position += [layer.name] if apart else []
        score.append(_checked(layer, error, _SCORES, visible, who))
    statements["heads as read give the output of their attention"] = max(output)
    but = f", but for a bias by position in {_listed(by_position)}" if by_position else ""
    if score:
        statements[f"heads as read give the scores of their attention{but}"] = max(score)
    for text, names in found_ways.described().items():
        statements[f"queries and keys of {_listed(names)} are {text}, as numbers show"] = 0.0
    return ProvedHeads(statements, runs, found, found_ways.found)


@dataclass(frozen=True)
class _Pass:
    """One attention in one forward pass, and the errors of its heads as read."""

    runs: HeadRuns
    calls: list[AttentionCall]
    found: Reproduction


def _score_error(layer: AttentionHeads, found: Sequence[Reproduction]) -> tuple[float, bool]:
    """The largest error of the scores, and whether it leaves out a bias by position."""
    plain = max(one.scores for one in found)
    known = [one.apart_from_positions for one in found]
    apart = max((error for error in known if not math.isnan(error)), default=math.inf)
    return (apart, True) if plain > tolerance(layer.query) >= apart else (plain, False)


class _Ways:
    """Searches for the norms and rotations that functions apply to queries and keys."""

    def __init__(self) -> None:
        self.found: dict[str, ScoreWay] = {}

    def search(
        self, module: nn.Module, layer: AttentionHeads, seen: Sequence[_Pass]
    ) -> tuple[float, bool] | None:
        """Find the best way that gives the scores of all passes; return its error, or None."""
        attention, path = submodule(module, layer.name), layer.name.split(".")
        around = [submodule(module, ".".join(path[:i])) for i in reversed(range(len(path)))]
        one = seen[0]
        tried = score_ways(layer, attention, around, one.runs, one.calls)
        best: tuple[float, bool] | None = None
        for way in (*dict.fromkeys(reversed(self.found.values())), *tried):
            heads = way.applied(layer, attention)
            error, apart = 0.0, False
            for p in seen:  # the first one rules out most
                own, by_position = _score_error(layer, [reproduce(heads, p.runs, p.calls)])
                error, apart = max(error, own), apart or by_position
                if error > (tolerance(layer.query) if best is None else best[0]):
                    break
            else:
                self.found[layer.name], best = way, (error, apart)
                if error <= _SURE * tolerance(layer.query):
                    break
        return best

    def described(self) -> dict[str, list[str]]:
        """Text of each way found, to the names of its attentions."""
        texts: dict[str, list[str]] = {}
        for name, way in self.found.items():
            texts.setdefault(str(way), []).append(name)
        return texts


def calls_of(layer: AttentionHeads, calls: Sequence[AttentionCall]) -> list[AttentionCall]:
    """The calls that ran inside an attention."""
    prefix = f"{layer.name}." if layer.name else ""
    return [c for c in calls if c.module == layer.name or c.module.startswith(prefix)]


def writing_points(module: nn.Module, proved: ProvedHeads) -> dict[str, str]:
    """Map the name of each attention that ran to the submodule whose output its heads write."""
    points = {}
    for name, runs in proved.runs.items():
        if name in proved.found and runs.written:
            output = find_output(submodule(module, name))
            points[name] = name if output is None else f"{name}.{output}".lstrip(".")
    return points


def _amplified(
    module: nn.Module,
    layers: Sequence[AttentionHeads],
    run: Callable[[], object],
    runs: Mapping[str, HeadRuns],
    found: Mapping[str, Reproduction],
) -> dict[str, _Pass]:
    """Repeat the forward pass with larger scores for the attentions whose scores were small."""
    factors = {
        layer.name: min(_LARGEST_FACTOR, math.sqrt(_SPREAD / found[layer.name].spread))
        for layer in layers
        if 0 < found[layer.name].spread < _SPREAD / 2
    }
    if not factors:
        return {}
    larger = [layer for layer in layers if layer.name in factors]
    with (
        recorded_attention(module) as calls,
        watched_heads(module, larger) as again,  # before outputs are restored
        amplified(module, larger, factors, runs),
    ):
        run()
    passes = {}
    for layer in larger:
        if layer.name in again and _finite(again[layer.name]):
            seen, own = again[layer.name], calls_of(layer, calls)
            passes[layer.name] = _Pass(seen, own, reproduce(layer, seen, own))
    return passes


_OUTPUT = (
    "its output is not the sum over heads of A (x W_V + b_V) W_O': another order of q, k and v in "
    "a fused projection, heads that mix, attention over features, a gate or norm before the output"
)
_SCORES = (
    "its scores are not x W_Q W_K' x': another order of q, k and v in a fused projection, queries, "
    "keys or scores that a function norms, rotates, caps or mixes"
)


def _checked(layer: AttentionHeads, error: float, reason: str, visible: bool, who: str) -> float:
    if error <= tolerance(layer.query):
        return error
    if not visible:
        reason = f"its weights A could not be seen, and with a softmax of the scores {reason}"
    size = "shapes do not fit" if math.isinf(error) else f"relative error {error:.2g}"
    raise MisconfigurationException(
        f"{who}: the heads of {layer.name or 'the module itself'!r} as read do not reproduce the "
        f"attention on the probe ({size}, expected at most {tolerance(layer.query):g}): {reason}, "
        "or the like. Give it a method `head_weights()` that returns what it computes with, or "
        "leave it out by `units`."
    )


def _finite(runs: HeadRuns) -> bool:
    tensors = [*runs.written, *(x for read in runs.read for x in read)]
    return all(bool(x.isfinite().all()) for x in tensors)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
