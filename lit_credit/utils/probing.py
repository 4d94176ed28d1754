"""A look into a module that leaves no trace."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from lit_credit.utils.activation_checkpoints import checkpoints
from lit_credit.utils.compiled import eager

__all__ = ["preserved_rng", "probing"]


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Restore the random states of python, numpy, torch and every used CUDA device on exit."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    # A device that was never used has no state to lose, and asking for it would initialise CUDA.
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if used else ()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


@contextmanager
def probing(module: nn.Module, *, train: bool = False) -> Iterator[None]:
    """Run ``module`` with gradients, in eval mode, and restore every mode and random state after.

    Inside, autograd records (also where Lightning validates under ``inference_mode``). Buffers are
    not copied: in eval mode a module has no reason to write to them. Modes are set without a call
    of ``eval`` or ``train``, which may do more, as LoRA layers that merge their weights. What is
    compiled runs eagerly, for compiled code does not see hooks; reentrant checkpoints run as
    torch's other variant, for ``torch.autograd.grad`` refuses them.

    Args:
        module: the module about to be run.
        train: leave the modes as they are instead of switching to eval mode.

    Example:
        >>> net = nn.Dropout().train()
        >>> with probing(net):
        ...     net.training, torch.is_grad_enabled()
        (False, True)
        >>> net.training
        True
    """
    modes = [(child, child.training) for child in module.modules()]
    with (
        preserved_rng(),
        torch.inference_mode(False),
        torch.enable_grad(),
        eager(),
        checkpoints("probed"),
    ):
        try:
            for child, mode in modes:
                child.training = mode and train
            yield
        finally:
            for child, mode in modes:
                child.training = mode
