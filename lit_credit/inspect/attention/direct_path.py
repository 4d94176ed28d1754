"""Testing numerically whether the output of attention arrives unchanged at a later point."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lit_credit.inspect.attention.frozen_forward import FrozenForward, plain_attention_path
from lit_credit.inspect.capture import Point, capture
from lit_credit.utils.compiled import submodule
from lit_credit.utils.nested import first_tensor, replace_first

__all__ = ["added_to_outputs", "arrivals"]


@torch.no_grad()
def arrivals(
    module: nn.Module,
    run: Callable[[], object],
    written: Mapping[str, Tensor],
    times: Mapping[str, int],
    point: Point,
    of_added: Callable[[str, Tensor], Tensor],
    of_passed: Callable[[Tensor], Tensor],
) -> dict[str, tuple[float, float]]:
    """Test whether additions to the outputs of submodules, and nothing else, arrive at a point.

    Everything but linear bookkeeping is frozen (:class:`FrozenForward`), so that later attention,
    MLPs and norms do not react. The additions are random numbers of the size of the stream.

    Args:
        module: the module.
        run: one forward pass on few rows, the same each time.
        written: name of a submodule to its output; the addition has the output's shape and dtype.
        times: name of a submodule to the number of its runs.
        point: the point at which to compare.
        of_added: maps the name of a submodule and its addition to the change that should arrive.
        of_passed: maps a tensor that passes the point to the part that is compared.

    Returns:
        Name to the relative error of the change at the point, and the multiple of the expected
        change that fits the change best. The name ``""`` stands for all submodules together; single
        submodules are tested only if the error of all together is not near 0.
    """
    frozen = FrozenForward()
    with plain_attention_path(), frozen, capture(module, [point]) as passed:
        run()
    before = passed[point].detach()
    generator = torch.Generator().manual_seed(0)
    size = before.float().square().mean().sqrt().clamp(min=1e-6).cpu()
    added = {
        name: (size * torch.randn(x.shape, generator=generator)).to(x)
        for name, x in written.items()
    }

    def change(names: Sequence[str]) -> tuple[float, float]:
        chosen = {name: added[name] for name in names}
        with plain_attention_path(), frozen, added_to_outputs(module, chosen):  # noqa: SIM117
            with capture(module, [point]) as passed:
                run()
        moved = of_passed(passed[point]).float() - of_passed(before).float()
        parts = [times[name] * of_added(name, chosen[name]).float() for name in names]
        if any(part.shape != moved.shape for part in parts):
            return math.inf, math.nan
        expected = torch.stack(parts).sum(0)
        error = (moved - expected).norm() / expected.norm()
        return float(error), float((moved * expected).sum() / expected.square().sum())

    found = {"": change(list(written))}
    if not found[""][0] <= 1e-4:  # otherwise no single submodule can differ
        found |= {name: change([name]) for name in written}
    return found


@contextmanager
def added_to_outputs(module: nn.Module, added: Mapping[str, Tensor]) -> Iterator[None]:
    """Add a tensor to the first tensor of submodules' outputs while the ``with`` lasts."""

    def hook(more: Tensor) -> Any:
        def add(_: nn.Module, __: Any, output: Any) -> Any:
            tensor = first_tensor(output)
            return None if tensor is None else replace_first(output, tensor + more)

        return add

    with ExitStack() as undo:
        for name, more in added.items():
            handle = submodule(module, name).register_forward_hook(hook(more))
            undo.callback(handle.remove)
        yield
