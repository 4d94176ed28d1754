"""Finding which attention of a net reads what another attention wrote."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lit_credit.inspect.attention.frozen_forward import plain_attention_path
from lit_credit.inspect.attention.heads import AttentionHeads
from lit_credit.inspect.attention.runs import HeadRuns, watched_heads
from lit_credit.utils.compiled import submodule
from lit_credit.utils.nested import first_tensor, replace_first

__all__ = ["side_by_side", "streams"]

_CHANGED = 1e-4


@torch.no_grad()
def streams(
    module: nn.Module,
    run: Callable[[], object],
    layers: Sequence[AttentionHeads],
    runs: Mapping[str, HeadRuns],
    cuts: Sequence[str],
) -> list[list[str]]:
    """Group attentions so that the output of each reaches only others of its group.

    To test this, the output of one attention is changed while the outputs of all others, including
    cross-attention, are held fixed.

    Args:
        module: the module.
        run: one forward pass on few rows, the same each time.
        layers: the heads of the attentions; those that did not run are left out.
        runs: what each attention read, from :func:`watched_heads`.
        cuts: names of all attention of the net.
    """
    known = {layer.name for layer in layers}
    left = [name for name in runs if name in known]  # in the order in which they ran
    groups = []
    while left:
        group = [left.pop(0)]
        # Along a residual path the first reaches all others; else each reaches only the next.
        while left and (found := set(left) & _reached(module, run, layers, runs, cuts, group[-1])):
            group += [name for name in left if name in found]
            left = [name for name in left if name not in found]
        groups.append(group)
    return groups


@torch.no_grad()
def side_by_side(
    module: nn.Module,
    run: Callable[[], object],
    layers: Sequence[AttentionHeads],
    runs: Mapping[str, HeadRuns],
    cuts: Sequence[str],
) -> tuple[str, str] | None:
    """Find two attentions with equal inputs, where the first does not change the second's input."""
    known = [layer.name for layer in layers if layer.name in runs and runs[layer.name].read]
    for first, second in pairwise(known):
        pair = zip(runs[first].read[0], runs[second].read[0], strict=False)
        alike = all(a.shape == b.shape and a.equal(b) for a, b in pair)
        if alike and second not in _reached(module, run, layers, runs, cuts, first):
            return first, second
    return None


def _reached(
    module: nn.Module,
    run: Callable[[], object],
    layers: Sequence[AttentionHeads],
    runs: Mapping[str, HeadRuns],
    cuts: Sequence[str],
    writer: str,
) -> set[str]:
    """Names of the attentions whose input changes with the output of the writer."""
    with plain_attention_path(), _held(module, cuts) as hold:
        run()
        hold(writer)
        with watched_heads(module, layers) as again:
            run()
    return {
        name
        for name, before in runs.items()
        if name in again and name != writer and _differ(before, again[name])
    }


def _differ(before: HeadRuns, after: HeadRuns) -> bool:
    pairs = zip(before.read[:1], after.read[:1], strict=False)
    return any(
        a.shape != b.shape or bool((a - b).norm() > _CHANGED * a.norm())
        for one, other in pairs
        for a, b in zip(one, other, strict=False)
    )


@contextmanager
def _held(module: nn.Module, names: Sequence[str]) -> Iterator[Callable[[str], None]]:
    """Record outputs until the yielded function is called; return the recorded ones after that.

    The function takes the name of a submodule, to whose recorded output random numbers are added.
    """
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    places = dict.fromkeys(names, 0)
    generator = torch.Generator().manual_seed(0)
    changed: list[str] = []

    def hook(name: str) -> Any:
        def pass_on(_: nn.Module, __: Any, output: Any) -> Any:
            tensor = first_tensor(output)
            if tensor is None:
                return None
            if not changed or not kept[name]:
                kept[name].append(tensor.detach().clone())
                return None
            held = kept[name][min(places[name], len(kept[name]) - 1)].clone()
            places[name] += 1
            if name in changed:
                noise = torch.randn(held.shape, generator=generator).to(held)
                held = held + noise * (1.0 + held.abs().amax())
            return replace_first(output, held)

        return pass_on

    with ExitStack() as undo:
        for name in names:
            undo.callback(submodule(module, name).register_forward_hook(hook(name)).remove)
        yield changed.append
