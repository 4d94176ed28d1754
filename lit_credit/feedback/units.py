"""Cutting nets into credit units: exact gradients inside units, no gradients between them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, is_grad_enabled, nn
from torch.compiler import is_compiling
from torch.utils.checkpoint import checkpoint

from lit_credit.feedback.activations import ActivationWatch
from lit_credit.inspect.activation_checkpoints import checkpoints, with_checkpoints
from lit_credit.inspect.unit_passage import Passage, passage_at
from lit_credit.utils.nested import described, first_tensor, map_tensors, replace_first, tensors_of

__all__ = ["LocalUnits", "Tap", "UnitGraphs", "local_units"]

Tap = Callable[[str, Tensor], Tensor]
"""Maps a unit's name and its detached output to the tensor that the net continues with."""


@dataclass(frozen=True)
class UnitGraphs:
    """The units' graphs from a forward pass, one entry per unit, in the order in which units end.

    Attributes:
        outputs: each unit's output in its own graph; if there are several tensors, the first of
            floating point. With ``recompute`` only shapes are kept, not values.
        linear: for units that are one linear layer, the input and the layer.
        inside: for units of several submodules, or that end at an input, the graph nodes of the
            members' outputs, member by member.
        begun: units of which a member has run, in order or not.
    """

    outputs: dict[str, Tensor] = field(default_factory=dict)
    linear: dict[str, tuple[Tensor, nn.Linear]] = field(default_factory=dict)
    inside: dict[str, list[list[Any]]] = field(default_factory=dict)
    begun: dict[str, None] = field(default_factory=dict)

    @property
    def unfinished(self) -> list[str]:
        """Units that ran only in part, so that their output is not known."""
        return [name for name in self.begun if name not in self.outputs]


class _Options(NamedTuple):
    detach_inputs: bool = True
    recompute: bool = False
    tap: Tap | None = None
    watch: ActivationWatch | None = None


@contextmanager
def local_units(
    module: nn.Module,
    units: Sequence[str],
    *,
    detach_inputs: bool = True,
    recompute: bool = False,
    tap: Tap | None = None,
    watch: ActivationWatch | None = None,
) -> Iterator[UnitGraphs]:
    """Cut the graph of a forward pass inside the ``with`` at the borders of the units.

    Each unit runs on detached inputs, and the rest of the net sees its output detached. So no
    credit passes through a unit or around it, skip connections included. Inside a unit, the net's
    own checkpoints (``torch.utils.checkpoint``) work as usual; around units, activations are kept.

    Args:
        module: the net.
        units: names of submodules of ``module``, in forward order; ``fc1+act1`` joins consecutive
            submodules into one unit, and ``fc1->fc2`` ends at the input of the submodule behind the
            arrow.
        detach_inputs: cut at the inputs too. Without this cut, parameters between two units learn
            from the credit of the next unit.
        recompute: keep only the inputs of each submodule of a unit, and run the submodule again in
            the backward pass: less memory for one more forward pass.
        tap: called with a unit's name and detached output; the net continues with its result.
        watch: told when units run, and what their outputs are.

    Yields:
        The units' graphs, which the forward pass fills in.

    Raises:
        ValueError: inside, if a unit runs twice in one forward pass or returns no float tensor.
    """
    cut = LocalUnits(module, units)
    with cut.installed(), checkpoints("direct"):
        yield cut.begin(detach_inputs, recompute, tap, watch)


class LocalUnits:
    """Cuts one forward pass after another as :func:`local_units` does, for less time each.

    Args:
        module: the net.
        units: names of submodules of ``module``, in forward order.

    Attributes:
        is_installed: whether a pass is under way inside of :meth:`installed`.
    """

    def __init__(self, module: nn.Module, units: Sequence[str]) -> None:
        self._passages = [Passage(module, name) for name in units]
        parts = [part for passage in self._passages for part in passage.parts]
        self._parts = list({id(part): part for part in parts}.values())
        self._local_forwards = [self._local_forward(i) for i in range(len(self._parts))]
        self._own_forwards: list[Callable[..., Any] | None] = [None] * len(self._parts)
        self._options = _Options()
        self._graphs = UnitGraphs()
        self.is_installed = False

    def fits(self, module: nn.Module, units: Sequence[str]) -> bool:
        """Whether these units of ``module`` are the same submodules."""
        names = [passage.name for passage in self._passages]
        return names == list(units) and all(passage.fits(module) for passage in self._passages)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Have the submodules run cut apart inside the ``with``."""
        replaced = 0
        self.is_installed = True
        try:
            for index, part in enumerate(self._parts):
                # The instance's attribute shadows the class's method. Not set by nn.Module's
                # __setattr__, which takes as long as the forward pass of a small unit.
                self._own_forwards[index] = vars(part).get("forward")
                vars(part)["forward"] = self._local_forwards[index]
                replaced += 1
            yield
        finally:
            for part, own in zip(self._parts[:replaced], self._own_forwards, strict=False):
                if own is None:
                    del vars(part)["forward"]
                else:
                    vars(part)["forward"] = own
            self.end()
            self.is_installed = False

    def begin(
        self,
        detach_inputs: bool = True,
        recompute: bool = False,
        tap: Tap | None = None,
        watch: ActivationWatch | None = None,
    ) -> UnitGraphs:
        """Begin a forward pass, whose graphs are returned; see :func:`local_units`."""
        self._options = _Options(detach_inputs, recompute, tap, watch)
        self._graphs = UnitGraphs()
        for passage in self._passages:
            passage.reset()
        return self._graphs

    def end(self) -> None:
        """Let go of the graphs of the last pass."""
        self._options, self._graphs = _Options(), UnitGraphs()

    def _local_forward(self, index: int) -> Callable[..., Any]:
        part = self._parts[index]
        ending = [passage for passage in self._passages if passage.until is part]
        members = [passage for passage in self._passages if passage.has_member(part)]

        def local(*args: Any, **kwargs: Any) -> Any:
            graphs, options = self._graphs, self._options
            forward = self._own_forwards[index] or partial(type(part).forward, part)
            for passage in ending:
                if passage.may_end:
                    args, kwargs = self._end_at_input(passage, args, kwargs)
            unit = passage_at(part, members)
            if unit is None:
                # A submodule without parameters, such as a ReLU, may also run outside its units.
                learns = any(True for _ in part.parameters())
                graphs.begun.update(dict.fromkeys(member.name for member in members if learns))
                return forward(*args, **kwargs)
            graphs.begun[unit.name] = None
            if options.detach_inputs and unit.step == 1:
                args, kwargs = _detached(args), _detached(kwargs)
            result = _run(forward, options, args, kwargs)
            if unit.is_composite:
                if not is_compiling():
                    graphs.inside.setdefault(unit.name, []).append(
                        [t.grad_fn for t in tensors_of(result) if t.grad_fn is not None]
                    )
                if not unit.has_run or unit.until is not None:
                    return result
            output = first_tensor(result, Tensor.is_floating_point)
            if output is None:
                raise ValueError(
                    f"unit {unit.name!r} returns {described(result)}, expected a floating-point "
                    "tensor, or a tuple, list, mapping or dataclass with one. Choose another "
                    "submodule as a unit."
                )
            plain = type(part) is nn.Linear and self._own_forwards[index] is None
            linear = plain and not unit.is_composite
            if isinstance(part, nn.Linear) and linear and args and args[0].dtype == output.dtype:
                graphs.linear[unit.name] = args[0], part
            handed_on = self._end(unit, output)
            if result is output:
                return handed_on
            return replace_first(_detached(result), handed_on, Tensor.is_floating_point)

        return local

    def _end_at_input(self, passage: Passage, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The inputs of the submodule at which a unit ends, cut off from the unit's graph."""
        tensor = first_tensor((args, kwargs))
        if tensor is None or not tensor.is_floating_point():
            raise ValueError(
                f"unit {passage.name!r} ends at the input of a submodule that is given no "
                "floating-point tensor. Name another one behind the arrow."
            )
        args, kwargs = replace_first((args, kwargs), self._end(passage, tensor))
        return args, kwargs

    def _end(self, passage: Passage, output: Tensor) -> Tensor:
        """Keep a unit's output, and return what the rest of the net gets in its place."""
        options = self._options
        passage.is_open = False
        kept = _WithoutValues.apply(output) if options.recompute else output
        self._graphs.outputs[passage.name] = kept
        handed_on = _detached_tensor(output)
        if options.tap is not None:
            handed_on = options.tap(passage.name, handed_on)
        if options.watch is not None and passage.until is None:
            options.watch.follow(passage.name, handed_on)
        return handed_on


def _run(forward: Callable[..., Any], options: _Options, args: Any, kwargs: Any) -> Any:
    """Run a member of a unit, with its own checkpoints."""
    if is_compiling():
        return forward(*args, **kwargs)
    if options.watch is not None:
        forward = options.watch.unseen(forward)
    with checkpoints("kept"):
        if options.recompute and is_grad_enabled():
            again = with_checkpoints("kept", forward)
            return checkpoint(again, *args, use_reentrant=False, **kwargs)
        return forward(*args, **kwargs)


class _WithoutValues(torch.autograd.Function):
    """Replaces a tensor by one of its shape, at the same place of the graph, without memory."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.new_zeros(()).expand(tensor.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def _detached(value: Any) -> Any:
    return map_tensors(value, _detached_tensor)


def _detached_tensor(tensor: Tensor) -> Tensor:
    return tensor.detach() if tensor.requires_grad else tensor
