"""Tracing where in a net numbers stop being finite."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric

from lit_credit.inspect.finite import NonFinite, non_finite
from lit_credit.utils.nested import tensors_of

__all__ = ["FiniteTrace", "finite_trace"]


class FiniteTrace:
    """The non-finite values of one forward and one backward pass.

    Attributes:
        activations: submodules whose output has NaN or inf that their inputs do not have, in the
            order in which they ran.
        gradients: submodules at whose output the gradient is not finite, in the order in which
            gradients arrived: from the top.
    """

    def __init__(self) -> None:
        self.activations: dict[str, NonFinite] = {}
        self.gradients: dict[str, NonFinite] = {}


@contextmanager
def finite_trace(module: nn.Module, names: Sequence[str]) -> Iterator[FiniteTrace]:
    """Watch submodules while the ``with`` lasts; torchmetrics among them are left out.

    Costs a check of every entry of every input, output and gradient, each with a wait for the
    device.

    Args:
        module: the module that runs inside the ``with``.
        names: names of its submodules.

    Yields:
        A trace that fills as the passes run. Gradients of ``torch.autograd.grad`` are seen, too.
    """
    trace = FiniteTrace()
    entered: list[set[str]] = []

    def before(_: nn.Module, args: Any, kwargs: Any) -> None:
        # Before the forward pass: a submodule that works in place changes its inputs.
        entered.append(_kinds(non_finite((args, kwargs))))

    def after(name: str, output: Any) -> None:
        known, found = entered.pop(), non_finite(output)
        if found is not None and found.kinds - known:
            trace.activations.setdefault(name, found)
            for around in entered:  # a submodule inside is the origin, not these
                around |= found.kinds
        for tensor in tensors_of(output):
            if tensor.requires_grad:
                _on_gradient(tensor, lambda gradient: arrive(name, gradient))

    def arrive(name: str, gradient: Tensor) -> None:
        found = non_finite(gradient)
        if found is not None:
            trace.gradients.setdefault(name, found)

    with ExitStack() as hooks:
        for name in names:
            submodule = module.get_submodule(name)
            if not isinstance(submodule, Metric):
                first = submodule.register_forward_pre_hook(before, with_kwargs=True)
                hooks.callback(first.remove)
                last = submodule.register_forward_hook(lambda _, __, out, n=name: after(n, out))
                hooks.callback(last.remove)
        yield trace


def _kinds(found: NonFinite | None) -> set[str]:
    return set() if found is None else found.kinds


def _on_gradient(tensor: Tensor, hook: Any) -> None:
    tensor.register_hook(hook)  # type: ignore[no-untyped-call]
