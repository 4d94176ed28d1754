"""Testing by gradients which queries and inputs of an attention each output position uses."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from lit_credit.inspect.attention.recording import AttentionCall, recorded_attention
from lit_credit.utils.nested import map_tensors, tensors_of

__all__ = ["NO_OUTPUT", "Answer", "Asked", "ask"]

# Legend: N samples, H heads, T queries, S keys, A attention, o the submodule's output, x its input.

_ROUNDING = 1e-5
NO_OUTPUT = "the output of the submodule does not depend on it"


@dataclass
class Answer:
    """What a forward pass showed in which every query attended to one key alone.

    Attributes:
        problem: why positions of o are not queries of A; None if they are.
        leak: largest derivative of a position of o by other queries of A, relative to that by its
            own query.
        positions: whether o has positions beside samples and features.
        reads: which elements of x the key brings to both of two queries; empty if not tested.
        constant: whether the key brings nothing of x to any query: a sink, or a parameter.
    """

    problem: str | None
    leak: float = 0.0
    positions: bool = False
    reads: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    constant: bool = False


@dataclass
class Asked:
    """A question about one attention call of a forward pass.

    Attributes:
        index: index of the call.
        beside: indices of all calls of the same submodule, which attend to the key too.
        place: name of the submodule whose input and output are tested.
        key: index of the key, from 0.
        answer: what :func:`ask` found.
    """

    index: int
    beside: Sequence[int]
    place: str
    key: int
    answer: Answer | None = None


@contextmanager
def ask(module: nn.Module, questions: Sequence[Asked]) -> Iterator[list[AttentionCall]]:
    """Answer questions about calls of different submodules by a forward pass inside the ``with``.

    In each of these calls, A is replaced by one that attends to the key alone. When the submodule
    has run, gradients of its output show which queries of A each position depends on, and which
    elements of the input the key brings there.

    Args:
        module: the module that will be run inside.
        questions: their ``answer`` is filled in; it stays None if the call did not happen.
    """
    by_index = {asked.index: asked for asked in questions}
    by_sibling = {index: asked for asked in questions for index in asked.beside}
    places: dict[str, _Place] = {}

    def replace(index: int, weights: Tensor) -> Tensor:
        asked = by_sibling.get(index)
        if asked is None:
            return weights
        alone = torch.zeros_like(weights.detach())
        alone[..., min(asked.key, weights.shape[-1] - 1)] = 1
        alone.requires_grad_(torch.is_grad_enabled())
        if index in by_index:
            places[asked.place].seen[index] = alone
        return alone

    with ExitStack() as undo:
        for asked in questions:
            if asked.place not in places:
                places[asked.place] = _Place(module.get_submodule(asked.place), by_index, undo)
        yield undo.enter_context(recorded_attention(module, replace))


class _Place:
    """Watches a submodule, and makes its input and output part of a graph of their own."""

    def __init__(self, module: nn.Module, asked: dict[int, Asked], undo: ExitStack) -> None:
        self.module, self.asked = module, asked
        self.seen: dict[int, Tensor] = {}
        self.inputs: list[Tensor] = []
        self.gradients_before: list[bool] = []
        for handle in (
            module.register_forward_pre_hook(self._enter, with_kwargs=True),
            module.register_forward_hook(self._leave, always_call=True),
            *(
                # If a submodule takes symbols, the vectors of the symbols count as its input.
                child.register_forward_hook(lambda _, __, vectors: self._in_graph(vectors))
                for child in module.modules()
                if isinstance(child, nn.Embedding)
            ),
        ):
            undo.callback(handle.remove)

    def _enter(self, _: nn.Module, args: Any, kwargs: Any) -> Any:
        self.gradients_before.append(torch.is_grad_enabled())
        torch.set_grad_enabled(True)
        self.seen, self.inputs = {}, []
        return map_tensors((args, kwargs), self._in_graph)

    def _in_graph(self, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or not self.gradients_before:
            return tensor
        if not (tensor.requires_grad and self.gradients_before[-1]):
            tensor = tensor.detach().requires_grad_()
        self.inputs.append(tensor)
        return tensor.clone()  # the submodule may work in place

    def _leave(self, module: nn.Module, _: Any, output: Any) -> Any:
        if not self.gradients_before:
            return None
        for index, attention in self.seen.items():
            try:
                answer = _answered(module, attention, self.inputs, output)
            except RuntimeError as error:  # of autograd
                answer = Answer(f"its gradient cannot be had ({str(error).splitlines()[0]})")
            self.asked[index].answer = answer
        outside = self.gradients_before.pop()
        torch.set_grad_enabled(outside)
        self.seen, self.inputs = {}, []
        return output if outside or output is None else map_tensors(output, Tensor.detach)


def _answered(module: nn.Module, a: Tensor, inputs: Sequence[Tensor], output: Any) -> Answer:
    found = [o for o in tensors_of(output) if _depends(o, a)]
    if not found:
        return Answer(NO_OUTPUT)
    o, answer = found[0], Answer(None)
    for feature in _feature_dims(module, o):
        rows = _rows(o, a, feature)
        answer = _judged(o, a, rows)
        if answer.problem is None:
            two = _two_queries(rows)
            masks = [_brought(o, inputs, row.cotangent) for row in two]
            answer.constant = not any(mask.any() for mask in masks)
            answer.reads = masks[0] if len(masks) == 1 else masks[0] & masks[1]
            return answer
    if rows:
        masks = [_brought(o, inputs, row.cotangent) for row in rows[:2]]
        answer.reads = masks[0] & masks[-1]
    return answer


def _depends(o: Tensor, a: Tensor) -> bool:
    if not o.requires_grad or not o.is_floating_point() or o.dim() < 2:
        return False
    if o.numel() == a.numel() and torch.equal(o.detach().flatten(), a.detach().flatten()):
        return False  # A itself, returned beside the output
    return bool(_gradient(o, [a], _random(o))[0].any())


def _feature_dims(module: nn.Module, o: Tensor) -> list[int]:
    """The dimensions that may be o's features: dimension 1 as in convolutions, or the last."""
    kinds = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
    kind = kinds.get(o.dim())
    channels = {
        n
        for child in module.modules()
        if kind is not None and isinstance(child, kind)
        for n in (child.in_channels, child.out_channels)
    }
    if o.shape[1] in channels and (o.dim() > 3 or o.shape[-1] not in channels):
        return [1]
    return [o.dim() - 1, 1] if o.dim() > 3 else [o.dim() - 1]


@dataclass
class _Row:
    """A position of o, and its gradient with respect to A."""

    cotangent: Tensor
    gradient: Tensor

    @property
    def touched(self) -> Tensor:
        """(N, H, T), whether the position depends on that query."""
        size = self.gradient.abs().amax(-1)
        return size > _ROUNDING * size.max()

    @property
    def queries(self) -> list[tuple[int, int]]:
        """The pairs (sample, query) that the position depends on."""
        return [(int(n), int(t)) for n, t in self.touched.any(1).nonzero()]


def _rows(o: Tensor, a: Tensor, feature: int) -> list[_Row]:
    """Those of some positions of o (first, middle, last, a few per dimension) that depend on A."""
    others = [dim for dim in range(o.dim()) if dim != feature]
    first = dict.fromkeys(others, 0)
    places = [first, {dim: o.shape[dim] // 2 for dim in others}]
    places.append({dim: o.shape[dim] - 1 for dim in others})
    for dim in others:
        places += [{**first, dim: at} for at in (1, o.shape[dim] - 1) if at < o.shape[dim]]
    cotangent, rows = _random(o), []
    known: set[str] = set()
    for place in places:
        at = tuple(place.get(dim, slice(None)) for dim in range(o.dim()))
        if str(at) in known:
            continue
        known.add(str(at))
        own = torch.zeros_like(cotangent)
        own[at] = cotangent[at]
        (gradient,) = _gradient(o, [a], own)
        if gradient.any():
            rows.append(_Row(own, gradient))
    return rows


def _judged(o: Tensor, a: Tensor, rows: Sequence[_Row]) -> Answer:
    positions = o.dim() > 2 and o[0].numel() > max(o.shape[-1], o.shape[1])
    most = max((len(row.queries) for row in rows), default=0)
    if most != 1:
        return Answer(
            f"one position of the output, of shape {tuple(o.shape)}, depends on {most} of its rows "
            f"(n, t), not on one",
            positions=positions,
        )
    leak = 0.0
    for row in rows:
        size = row.gradient.abs().amax((1, 3))
        (n, t), largest = row.queries[0], float(size.max())
        size[n, t] = 0
        leak = max(leak, float(size.max()) / largest)
    for one, two in combinations(rows, 2):
        same = one.queries == two.queries
        # Two positions may differ by their head only if heads have a dimension of their own.
        if same and (o.dim() < 4 or bool((one.touched & two.touched).any())):
            return Answer(
                f"two positions of the output, of shape {tuple(o.shape)}, share a row (n, t)",
                positions=positions,
            )
    return Answer(None, leak, positions)


def _two_queries(rows: Sequence[_Row]) -> list[_Row]:
    """Two positions of one sample with different queries, else the first position alone."""
    for one, two in combinations(rows, 2):
        (n, t), (m, u) = one.queries[0], two.queries[0]
        if n == m and t != u:
            return [one, two]
    return [rows[0]]


def _brought(o: Tensor, inputs: Sequence[Tensor], cotangent: Tensor) -> Tensor:
    """Which elements of all inputs the position depends on, with A fixed."""
    if not inputs:
        return torch.zeros(0, dtype=torch.bool, device=o.device)
    sizes = torch.cat([g.abs().flatten() for g in _gradient(o, inputs, cotangent)])
    return (sizes > _ROUNDING * sizes.max()).detach()


def _gradient(o: Tensor, tensors: Sequence[Tensor], cotangent: Tensor) -> list[Tensor]:
    return list(
        torch.autograd.grad(
            o, tensors, cotangent, retain_graph=True, allow_unused=True, materialize_grads=True
        )
    )


def _random(o: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(o.shape, generator=generator).to(o)
