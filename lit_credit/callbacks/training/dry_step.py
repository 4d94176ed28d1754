"""A training step of manual optimization that trains nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_credit.utils.private_names import requires_grad_before_toggle

__all__ = ["dry_step"]


def dry_step(module: LightningModule, *arguments: Any) -> None:
    """Run a ``training_step`` that optimizes manually, with optimizers that do not step.

    Where the step calls ``manual_backward``, gradients are computed and thrown away. Run it inside
    :func:`guarded`, which undoes the step's changes to the module.

    Args:
        module: a module with manual optimization.
        *arguments: the arguments of its ``training_step``.
    """
    with _idle(module):
        # Undo a `toggle_optimizer` that the step has called.
        for parameter, trained in requires_grad_before_toggle(module).items():
            parameter.requires_grad_(trained)
        module.training_step(*arguments)


class _Idle:
    """Stands in for an optimizer or a scheduler: its steps do nothing, all else is unchanged."""

    def __init__(self, kept: Any) -> None:
        self._kept = kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kept, name)

    def step(self, closure: Any = None, *_: Any, **__: Any) -> Any:
        return closure() if callable(closure) else None

    def zero_grad(self, *_: Any, **__: Any) -> None: ...


@contextmanager
def _idle(module: LightningModule) -> Iterator[None]:
    def backward(loss: Tensor, *_: Any, retain_graph: bool | None = None, **__: Any) -> None:
        # Not `.backward()`: under DDP it would wait for the other processes.
        wanted = [p for p in module.parameters() if p.requires_grad]
        if wanted and loss.requires_grad:
            ones = torch.ones_like(loss)
            torch.autograd.grad(loss, wanted, ones, retain_graph=retain_graph, allow_unused=True)

    stubs = {
        "optimizers": _stub(module.optimizers()),
        "lr_schedulers": _stub(module.lr_schedulers()),
        "manual_backward": backward,
        "clip_gradients": lambda *_, **__: None,
        "log": lambda *_, **__: None,
        "log_dict": lambda *_, **__: None,
    }
    before = {name: vars(module)[name] for name in stubs if name in vars(module)}
    try:
        vars(module).update(stubs)
        yield
    finally:
        for name in stubs:
            vars(module).pop(name, None)
        vars(module).update(before)


def _stub(real: Any) -> Any:
    idle = [_Idle(one) for one in real] if isinstance(real, list) else real and _Idle(real)
    return lambda *_, **__: idle
