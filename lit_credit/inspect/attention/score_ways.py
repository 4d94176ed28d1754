"""Guessing how functions norm and rotate queries and keys before the scores."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product

import torch
from torch import Tensor, nn

from lit_credit.inspect.attention.heads import AttentionHeads, Rope, RopeLayout, ScoreNorm
from lit_credit.inspect.attention.recompute import in_rows, normed, projected, ways
from lit_credit.inspect.attention.recording import AttentionCall
from lit_credit.inspect.attention.runs import HeadRuns
from lit_credit.inspect.attention.score_norms import per_head
from lit_credit.utils.compiled import submodule

__all__ = ["ScoreWay", "score_ways", "with_ways"]

# Legend: N samples, H heads, T positions, k features of a head.

_LAYOUTS: tuple[RopeLayout, ...] = ("half", "interleaved")
_BASES = (1e4, 5e5, 1e6)
"""Bases of the frequencies base^(-2 i / k) to try if no table shows frequencies."""
_MOST_GAINS = 2
_EPSILONS = (0.0, 1e-5)
_FAINTEST = 1e-20


@dataclass(frozen=True)
class _NormByFunction:
    centred: bool
    joint: bool
    gains: tuple[str, str] | None = None
    """Names of parameters below the attention, for queries and keys."""
    plus_one: bool = False
    epsilon: float = 0.0

    def read(self, attention: nn.Module, heads: AttentionHeads) -> ScoreNorm:
        """The norm with its current gains."""
        if self.gains is None:
            return ScoreNorm(self.centred, self.joint, epsilon=self.epsilon)
        count, _, size = heads.query.shape
        query_gain, key_gain = (
            per_head(attention.get_parameter(name) + self.plus_one, count, size)
            for name in self.gains
        )
        return ScoreNorm(self.centred, self.joint, query_gain, key_gain, epsilon=self.epsilon)


@dataclass(frozen=True)
class ScoreWay:
    """A way in which queries and keys may be normed and rotated; it stays valid during training.

    Attributes:
        rope: the rotation; None if there is none.
        norm: the norm that a function computes; None keeps the norm read from submodules.
    """

    rope: Rope | None
    norm: _NormByFunction | None

    def applied(self, heads: AttentionHeads, attention: nn.Module) -> AttentionHeads:
        """The heads with this norm and rotation."""
        norm = heads.score_norm if self.norm is None else self.norm.read(attention, heads)
        return replace(heads, rope=self.rope, score_norm=norm, doubt="")

    def __str__(self) -> str:
        parts = []
        if self.norm is not None:
            of = "all heads together" if self.norm.joint else "each head"
            kind = "layer norm" if self.norm.centred else "root mean square"
            gains = f", with gains {' and '.join(self.norm.gains)}" if self.norm.gains else ""
            parts.append(f"normed by the {kind} of {of}{gains}")
        if self.rope is not None:
            parts.append(f"rotated by position, {len(self.rope.frequencies)} pairs")
        return " and ".join(parts) or "neither normed nor rotated"


def with_ways(
    module: nn.Module, layers: Sequence[AttentionHeads], found: Mapping[str, ScoreWay]
) -> list[AttentionHeads]:
    """Apply the ways that :func:`lit_credit.inspect.attention.proof.prove_heads` found to heads."""
    return [
        found[layer.name].applied(layer, submodule(module, layer.name))
        if layer.name in found
        else layer
        for layer in layers
    ]


def score_ways(
    heads: AttentionHeads,
    attention: nn.Module,
    around: Sequence[nn.Module],
    runs: HeadRuns,
    calls: Sequence[AttentionCall],
) -> Iterator[ScoreWay]:
    """List ways to try: first that of the heads as read, then the others, the plainest first.

    Norms have gains among the attention's own parameters, or none. Rotations come from the queries
    that ``scaled_dot_product_attention`` was given; from tables of cosines and sines that the
    attention or a module around it holds, or the attention was given; from usual frequencies; and
    from the attention that a position pays to itself, relative to that to the position before.

    Args:
        heads: the heads as read.
        attention: the module.
        around: the modules around it.
        runs: what the attention read.
        calls: the recorded attention.
    """
    norms = [None, *([] if heads.score_norm is not None else _norms(heads, attention))]
    tables = list(_from_tables(heads, attention, around, runs))
    usual = list(_usual(heads))
    for norm in norms:
        shown = replace(heads, rope=None)
        shown = shown if norm is None else replace(shown, score_norm=norm.read(attention, heads))
        yield ScoreWay(heads.rope, norm)
        if heads.rope is not None:
            yield ScoreWay(None, norm)
        shown_ones = list(_from_queries(shown, runs, calls))
        # Frequencies are guessed only where nothing shows them.
        guessed = usual if norm is None or not (tables or shown_ones) else []
        for rope in (*shown_ones, *tables, *guessed):
            yield ScoreWay(rope, norm)
        if norm is None and heads.score_norm is None:
            for rope in _from_scores(shown, runs, calls):
                yield ScoreWay(rope, norm)


def _norms(heads: AttentionHeads, attention: nn.Module) -> Iterator[_NormByFunction]:
    count, _, size = heads.query.shape
    gains = [
        name
        for name, p in attention.named_parameters()
        if p.is_floating_point()
        and p.ndim <= 2
        and p.numel() % size == 0
        # Exclude the projections and their biases.
        and p.numel() <= count * size
        and not name.endswith(("bias", "b_Q", "b_K", "b_V", "b_O"))
    ]
    pairs: list[tuple[str, str] | None] = [None]
    if 0 < len(gains) <= _MOST_GAINS:
        pairs.append((gains[0], gains[-1]))
    for pair in pairs:
        ones = [False] if pair is None else [False, True]
        for plus_one, joint, centred in product(ones, (False, True), (False, True)):
            for epsilon in _EPSILONS:
                yield _NormByFunction(centred, joint, pair, plus_one, epsilon)


def _projections(
    heads: AttentionHeads, runs: HeadRuns, shape: tuple[int, ...] | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Queries and keys (N, H, T, k) before a rotation, by every way to interpret the inputs."""
    for x, y, _ in ways(runs.read[0]) if runs.read else ():
        for transposed in (False, True):
            sides = []
            for stream, weight, bias in (
                (x, heads.query, heads.query_bias),
                (y, heads.key, heads.key_bias),
            ):
                rows = in_rows(stream, transposed).float()
                sides.append(
                    projected(rows, weight.float(), None if bias is None else bias.float())
                )
            q, k = normed(sides[0], sides[1], heads)
            if q.shape[2] > 1 and (shape is None or q.shape == shape):
                yield q, k


def _paired(size: int) -> Iterator[tuple[RopeLayout, Tensor, Tensor]]:
    """Layouts with the first and second features of their pairs, for all features or fewer."""
    for layout in _LAYOUTS:
        for features in (size, size // 2, size // 4):
            if features > 1:
                yield layout, *Rope(torch.zeros(features // 2), layout).pairs


def _from_queries(
    heads: AttentionHeads, runs: HeadRuns, calls: Sequence[AttentionCall]
) -> Iterator[Rope]:
    """Rotations by the angle that queries were turned from one position to the next."""
    if not calls or calls[0].query is None:
        return
    seen = calls[0].query.detach().float()
    for q, _ in _projections(heads, runs, seen.shape):
        for layout, i, j in _paired(q.shape[-1]):
            before, after = (torch.complex(y[..., i], y[..., j]) for y in (q, seen))
            turned = (before.conj() * after).sum((0, 1))
            yield Rope((turned[1] * turned[0].conj()).angle().to(heads.query), layout)


def _from_scores(
    heads: AttentionHeads, runs: HeadRuns, calls: Sequence[AttentionCall]
) -> Iterator[Rope]:
    r"""Fit rotations, by least squares, to the attention to a position and to the one before it.

    .. math:: \log A_{t,t} - \log A_{t,t-1} = (q_t k_t - \mathrm{Re} \sum_p q_{t,p}
        \bar k_{t-1,p} e^{i f_p}) / \sqrt{d_{head}}
    """
    if not calls:
        return
    a = calls[0].weights.detach().float()
    for q, k in _projections(heads, runs, None):
        if a.shape[:3] != q.shape[:3] or a.shape[3] != k.shape[2] or q.shape != k.shape:
            continue
        near = (a.diagonal(0, 2, 3)[..., 1:], a.diagonal(-1, 2, 3))
        shown = (near[0] > _FAINTEST) & (near[1] > _FAINTEST)
        ratio = (near[0].log() - near[1].log()) * math.sqrt(q.shape[-1])
        q_now, k_now, k_before = q[:, :, 1:], k[:, :, 1:], k[:, :, :-1]
        target = (q_now * k_now).sum(-1) - ratio
        for layout, i, j in _paired(q.shape[-1]):
            rest = torch.ones(q.shape[-1], dtype=torch.bool, device=q.device)
            rest[torch.cat([i, j])] = False
            one, two = (torch.complex(x[..., i], x[..., j]) for x in (q_now, k_before))
            product = one * two.conj()
            known = (q_now * k_before)[..., rest].sum(-1)
            matrix = torch.cat([product.real, -product.imag], -1)[shown].double()
            wanted = (target - known)[shown].double()[:, None]
            if len(matrix) < matrix.shape[1] or not (
                matrix.isfinite().all() and wanted.isfinite().all()
            ):
                continue
            cos, sin = torch.linalg.lstsq(matrix.cpu(), wanted.cpu()).solution[:, 0].chunk(2)
            yield Rope(torch.atan2(sin, cos).to(heads.query), layout)


def _from_tables(
    heads: AttentionHeads, attention: nn.Module, around: Sequence[nn.Module], runs: HeadRuns
) -> Iterator[Rope]:
    held = [list(attention.buffers())]
    held += [list(module.buffers(recurse=False)) for module in around]
    for tensors in (runs.given, *held):
        for x in tensors:
            if x.is_complex() and x.dim() >= 2:
                yield from _ropes(heads, x.detach().real, x.detach().imag)
        for one, two in pairwise(tensors):
            if one.shape == two.shape and one.is_floating_point() and one.dim() >= 2:
                yield from _ropes(heads, one.detach(), two.detach())


def _ropes(heads: AttentionHeads, one: Tensor, two: Tensor) -> Iterator[Rope]:
    """Rotations from a table of cosines and a table of sines, (..., T, pairs or features)."""
    if one.shape[-2] < 2:
        return
    one, two = (x.reshape(-1, *x.shape[-2:])[0, :2].float() for x in (one, two))
    cos, sin = (two, one) if float(one[0].abs().max()) == 0 else (one, two)
    size = torch.hypot(cos, sin)
    scale = float(size[0, 0])
    if not scale > 0 or (size - scale).abs().max() > 1e-3 * scale or sin[0].abs().max() > 0:
        return
    angle = torch.atan2(sin[1], cos[1])
    width = len(angle)
    found = [angle]
    if width % 2 == 0:
        found += [angle[: width // 2], angle[::2]]
    for frequencies in found:
        if 2 * len(frequencies) <= heads.query.shape[-1]:
            for layout in _LAYOUTS:
                yield Rope(frequencies.to(heads.query), layout, scale)


def _usual(heads: AttentionHeads) -> Iterator[Rope]:
    size = heads.query.shape[-1]
    if heads.rope is not None:
        for layout in _LAYOUTS:
            yield replace(heads.rope, layout=layout)
    for base in _BASES:
        for features in (size, size // 2, size // 4):
            if features >= 2:
                place = torch.arange(features // 2, device=heads.query.device)
                frequencies = torch.exp(-math.log(base) * 2 * place / (2 * (features // 2)))
                for layout in _LAYOUTS:
                    yield Rope(frequencies.to(heads.query), layout)
