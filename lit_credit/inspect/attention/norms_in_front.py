"""Finding, by comparing numbers, the norm through which an attention reads the stream."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from lit_credit.inspect.attention.final_norm import norm_names
from lit_credit.inspect.attention.heads import AttentionHeads
from lit_credit.inspect.attention.norm_forms import NormForm, norm_form
from lit_credit.inspect.attention.runs import HeadRuns
from lit_credit.inspect.capture import Point
from lit_credit.utils.compiled import submodule

__all__ = ["NormInFront", "find_norms_in_front", "norm_points"]


class NormInFront(NamedTuple):
    """A norm whose output is what an attention reads."""

    name: str
    form: NormForm

    def gain(self, module: nn.Module) -> Tensor | None:
        """The norm's current gain, (d,); None if it has none."""
        return self.form.gain(submodule(module, self.name))


def norm_points(module: nn.Module, layers: Sequence[AttentionHeads]) -> list[Point]:
    """The points to record for :func:`find_norms_in_front`."""
    names = {name for layer in layers for name in _candidates(module, layer)}
    return [Point(name, side) for name in sorted(names) for side in ("input", "output")]


def find_norms_in_front(
    module: nn.Module,
    layers: Sequence[AttentionHeads],
    runs: Mapping[str, HeadRuns],
    passed: Mapping[Point, Tensor],
) -> dict[str, NormInFront]:
    """Map the name of an attention to the norm whose output it projects to queries, keys, values.

    Only norms beside the attention, or inside it, are considered. In a post-norm layer the norm in
    front belongs to the layer before, and its output is the stream itself.
    """
    found = {}
    for layer in layers:
        read = runs[layer.name].read[0] if layer.name in runs and runs[layer.name].read else []
        for name in _candidates(module, layer):
            before, after = (passed.get(Point(name, side)) for side in ("input", "output"))
            if before is None or after is None or not read:
                continue
            if all(x.shape == after.shape and x.equal(after) for x in read):
                form = norm_form(submodule(module, name), before, after)
                if form is not None:
                    found[layer.name] = NormInFront(name, form)
    return found


def _candidates(module: nn.Module, layer: AttentionHeads) -> list[str]:
    parent = layer.name.rpartition(".")[0]
    return [
        name
        for name in norm_names(module)
        if name.rpartition(".")[0] == parent or name.startswith(f"{layer.name}.")
    ]
