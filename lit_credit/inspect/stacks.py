"""Finding stacks of repeated blocks in a net, such as the layers of a transformer."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from lit_credit.inspect.capture import Point, capture
from lit_credit.utils.compiled import named_submodules

__all__ = ["chained_stacks", "repeated_blocks"]

_SIDES: tuple[Literal["input"], Literal["output"]] = ("input", "output")
_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


def repeated_blocks(module: nn.Module) -> list[list[str]]:
    """Names of submodules that may be blocks of one stack, stack by stack, outer stacks first.

    These are two or more neighbours of one class in an ``nn.ModuleList``, ``nn.ModuleDict`` or
    ``nn.Sequential``. Blocks are neither such containers themselves nor single layers of torch,
    such as ``nn.Linear``.

    Example:
        >>> block = nn.TransformerEncoderLayer(4, 2, batch_first=True)
        >>> repeated_blocks(nn.Sequential(nn.Linear(4, 4), nn.TransformerEncoder(block, 2)))
        [['1.layers.0', '1.layers.1']]
    """
    found = []
    for name, container in named_submodules(module):
        if isinstance(container, _CONTAINERS):
            prefix = f"{name}." if name else ""
            found += [[prefix + n for n in names] for names in _runs(container) if len(names) > 1]
    return found


def chained_stacks(
    module: nn.Module, run: Callable[[], object], stacks: Sequence[Sequence[str]]
) -> list[list[str]]:
    """The outermost of some stacks whose blocks read, each, what the one before returns.

    Stacks that follow one another in the same way, such as the stages of a ResNet, are one.

    Args:
        module: the module.
        run: runs it on a few rows.
        stacks: names of blocks, stack by stack, as of :func:`repeated_blocks`.
    """
    points = [Point(name, side) for names in stacks for name in names for side in _SIDES]
    with torch.no_grad(), capture(module, list(dict.fromkeys(points))) as passed:
        run()

    def is_chain(names: Sequence[str]) -> bool:
        return all(
            _equal(passed.get(Point(one, "output")), passed.get(Point(other, "input")))
            for one, other in pairwise(names)
        )

    chained = [list(names) for names in stacks if is_chain(names)]
    inside = tuple(f"{name}." for names in chained for name in names)
    found: list[list[str]] = []
    for names in chained:
        if names[0].startswith(inside):
            continue
        if found and is_chain([found[-1][-1], names[0]]):
            found[-1] += names
        else:
            found.append(names)
    return found


def _runs(container: nn.Module) -> Iterator[list[str]]:
    """Names of neighbours of one class."""
    children = [(n, c) for n, c in named_submodules(container) if n and "." not in n]
    for _, group in groupby(children, lambda child: type(child[1])):
        yield [name for name, child in group if not _is_plain(child)]


def _is_plain(child: nn.Module) -> bool:
    """Whether a submodule is a single layer of torch, or a container."""
    single = next(child.children(), None) is None
    return type(child) in _CONTAINERS or (single and type(child).__module__.startswith("torch."))


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None or one.shape != other.shape:
        return False
    return bool(torch.allclose(one, other.to(one), rtol=0, atol=0, equal_nan=True))
