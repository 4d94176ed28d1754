"""Tensors at the borders of named submodules, read during one forward pass."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lit_credit.utils.compiled import submodule
from lit_credit.utils.nested import first_tensor, replace_first

__all__ = ["Point", "capture"]


class Point(NamedTuple):
    """A place in a net: the input or the output of a submodule."""

    module: str
    side: Literal["input", "output"]


@contextmanager
def capture(module: nn.Module, points: Sequence[Point]) -> Iterator[dict[Point, Tensor]]:
    """Record the first tensor that passes each point while the ``with`` lasts.

    Recorded tensors are part of the graph, so ``torch.autograd.grad(loss, tensors)`` works. The net
    goes on with a copy, so that an operation in place (``nn.ReLU(inplace=True)``) does not change
    what was recorded. Where nothing before a point requires a gradient, a leaf that does takes the
    tensor's place; a path around the submodule still has the tensor itself, so what the gradient at
    such an input gets from there is missing.

    Args:
        module: the module that will be run inside.
        points: where to look; names are those of ``module.named_modules()``.

    Yields:
        A dict that fills as the forward pass runs; a point not passed has no entry. Where a
        submodule runs several times, the first passage counts.

    Raises:
        AttributeError: if ``module`` has no submodule of such a name.
    """
    tensors: dict[Point, Tensor] = {}

    def record(point: Point, value: Any) -> Any:
        tensor = first_tensor(value)
        if point in tensors or tensor is None or not tensor.is_floating_point():
            return None
        if torch.is_grad_enabled() and not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_()
        tensors[point] = tensor
        return replace_first(value, tensor.clone())

    with ExitStack() as hooks:
        for point in points:
            hooks.callback(_hook(submodule(module, point.module), point, record).remove)
        yield tensors


def _hook(submodule: nn.Module, point: Point, record: Any) -> Any:
    if point.side == "output":
        return submodule.register_forward_hook(lambda _, __, output: record(point, output))

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if first_tensor(args) is not None:
            changed = record(point, args)
            return None if changed is None else (changed, kwargs)
        changed = record(point, kwargs)
        return None if changed is None else (args, changed)

    return submodule.register_forward_pre_hook(before, with_kwargs=True)
