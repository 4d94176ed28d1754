"""Recording the inputs and outputs of named submodules during a forward pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lit_credit.inspect.activation_checkpoints import is_second_run
from lit_credit.inspect.unit_names import is_composite, parse_unit
from lit_credit.inspect.unit_passage import Passage, passage_at
from lit_credit.utils.compiled import submodule
from lit_credit.utils.nested import any_tensor, first_tensor, has_fractions, replace_first

__all__ = ["Captured", "Point", "capture"]


class Point(NamedTuple):
    """A place in a net: the input or the output of a submodule.

    A unit of several submodules, such as ``fc1+act1`` or ``fc1->fc2``, has its points where it
    begins and ends; see :mod:`lit_credit.inspect.unit_names`.
    """

    module: str
    side: Literal["input", "output"]


class Captured(dict[Point, Tensor]):
    """Recorded tensors by point, in the order in which they passed.

    Attributes:
        repeated: points whose submodule ran more than once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.repeated: set[Point] = set()


@contextmanager
def capture(
    module: nn.Module,
    points: Sequence[Point],
    change: Mapping[Point, Callable[[Tensor], Tensor]] | Callable[[Tensor], Tensor] = Tensor.clone,
) -> Iterator[Captured]:
    """Record the tensor that passes each point while the ``with`` lasts.

    Of several inputs, the first tensor is recorded; of several outputs, the first tensor of real or
    complex numbers.

    Recorded tensors are part of the graph, so ``torch.autograd.grad(loss, tensors)`` works. The net
    goes on with a copy, so that an operation in place (``nn.ReLU(inplace=True)``) does not change
    the recorded tensor. Where nothing before a point requires a gradient, a leaf that requires one
    takes the tensor's place. A path around the submodule still uses the original tensor, so the
    gradient at such an input lacks the part of that path.

    Args:
        module: the module that will be run inside.
        points: where to look; names are those of ``module.named_modules()``.
        change: maps a recorded tensor to what the net goes on with, a new tensor; one function for
            all points, or some by point.

    Yields:
        A dict that fills as the forward pass runs; a point not passed has no entry. If a submodule
        runs several times, its first run counts, and ``repeated`` names the point. Inside the
        ``with``, the second run of a checkpointed block (``torch.utils.checkpoint``) takes the same
        path.

    Raises:
        AttributeError: if ``module`` has no submodule of such a name.
        ValueError: inside, if two units wait for one submodule that they share.
    """
    tensors = Captured()

    def record(point: Point, value: Any) -> Any:
        # Of inputs the first tensor, of whatever type: a later one may be a mask.
        tensor = first_tensor(value, has_fractions if point.side == "output" else any_tensor)
        again = point in tensors
        if tensor is None or not has_fractions(tensor):
            return None
        if again and not is_second_run():
            tensors.repeated.add(point)
            return None
        if torch.is_grad_enabled() and not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_()
        if not again:
            tensors[point] = tensor
        to_next = change if callable(change) else change.get(point, Tensor.clone)
        return replace_first(value, to_next(tensor), has_fractions)

    with ExitStack() as hooks:
        passages = []
        for point in points:
            if point.side == "output" and is_composite(point.module):
                passages.append(Passage(module, point.module))
                continue
            name = parse_unit(point.module).members[0]
            hooks.callback(_hook(submodule(module, name), point, record).remove)
        for part in {id(part): part for passage in passages for part in passage.parts}.values():
            for handle in _unit_hooks(part, passages, record):
                hooks.callback(handle.remove)
        yield tensors


def _hook(submodule: nn.Module, point: Point, record: Any) -> Any:
    if point.side == "output":
        return submodule.register_forward_hook(lambda _, __, output: record(point, output))
    return _input_hook(submodule, lambda value: record(point, value))


def _unit_hooks(part: nn.Module, passages: Sequence[Passage], record: Any) -> list[Any]:
    """Hooks that follow units of several submodules through one of them."""
    ending = [passage for passage in passages if passage.until is part]
    members = [passage for passage in passages if passage.has_member(part)]

    def at_input(value: Any) -> Any:
        changed = None
        for passage in [] if is_second_run() else ending:
            if passage.may_end:
                passage.is_open = False
                changed = record(Point(passage.name, "output"), value)
                value = value if changed is None else changed
        return changed

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        passage = None if is_second_run() else passage_at(part, members)
        if passage is None or passage.until is not None or not passage.has_run:
            return None
        passage.is_open = False
        return record(Point(passage.name, "output"), output)

    return [_input_hook(part, at_input), part.register_forward_hook(after)]


def _input_hook(submodule: nn.Module, record: Any) -> Any:
    """Register a hook on the positional inputs if they hold a tensor, else on the keyword ones."""

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if first_tensor(args) is not None:
            changed = record(args)
            return None if changed is None else (changed, kwargs)
        changed = record(kwargs)
        return None if changed is None else (args, changed)

    return submodule.register_forward_pre_hook(before, with_kwargs=True)
