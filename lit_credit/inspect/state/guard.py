"""Measuring on a module without changing anything."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from lit_credit.inspect.activation_checkpoints import checkpoints
from lit_credit.inspect.state.held_state import HeldState
from lit_credit.inspect.state.stand_ins import silenced
from lit_credit.utils.compiled import eager
from lit_credit.utils.private_names import trainer_of
from lit_credit.utils.random_state import preserved_rng

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["guarded", "held", "isolated"]

_WRITING = {
    "wandb": ("log", "run"),
    "mlflow": ("log_artifact", "log_figure", "log_image", "log_metric", "log_metrics", "log_text"),
}
"""Functions that write points without a logger, by package."""
_OPEN: "WeakKeyDictionary[nn.Module, list[HeldState]]" = WeakKeyDictionary()


@contextmanager
def guarded(
    module: nn.Module, trainer: "Trainer | None" = None, *, train: bool = False
) -> Iterator[None]:
    """Measure on ``module`` with gradients, in eval mode, and restore everything on exit.

    On exit, also after an error, these are what they were, to the bit and in the same memory:
    parameters, their gradients and ``requires_grad``, buffers, attributes, containers and objects
    in attributes, modes, hooks, generators that the module holds, and the random states of python,
    numpy, torch and devices. Loggers write no points inside. Objects that cannot be restored, such
    as an iterator or an open file, raise when they are used; see :class:`HeldState`.

    Inside, autograd records (even when Lightning validates under ``inference_mode``), and ``grad``
    of every parameter is None. Modes are set without a call of ``eval`` or ``train``, because these
    may do more: LoRA layers merge their weights. Compiled modules run eagerly, because compiled
    code does not see hooks. Reentrant checkpoints run as torch's other variant, because
    ``torch.autograd.grad`` refuses them.

    The cost is a copy, until the exit, of all parameters, buffers and other tensors that the module
    holds. Datasets, loaders, the Trainer and its callbacks are not entered.

    Args:
        module: the module about to be run.
        trainer: the Trainer whose loggers are silenced; None takes that of ``module``, if any.
        train: leave the modes as they are instead of switching to eval mode.

    Raises:
        MisconfigurationException: inside, if an object that cannot be restored is used.

    Example:
        >>> net = nn.Dropout().train()
        >>> with guarded(net):
        ...     net.training, torch.is_grad_enabled()
        (False, True)
        >>> net.training
        True
    """
    trainer = trainer_of(module) if trainer is None else trainer
    modes = [(child, child.training) for child in module.modules()]
    with (
        preserved_rng(),
        torch.inference_mode(False),
        torch.enable_grad(),
        eager(),
        checkpoints("probed"),
        _silent(module, trainer),
        _held(module, trainer, functions=True),
    ):
        try:
            for child, mode in modes:
                child.training = mode and train
            yield
        finally:
            for child, mode in modes:
                child.training = mode


@contextmanager
def held(module: nn.Module) -> Iterator[None]:
    """Restore all that :func:`guarded` restores on exit, and change nothing inside.

    Inside, others may be loaded into the module, and measured with :func:`guarded`. Loggers write
    points. The Trainer that the module is attached to is not restored.
    """
    modes = [(child, child.training) for child in module.modules()]
    with preserved_rng(), _held(module, None, functions=True):
        try:
            yield
        finally:
            for child, mode in modes:
                child.training = mode


@contextmanager
def isolated(module: nn.Module) -> Iterator[None]:
    """Run ``module`` once and restore its state, random numbers and parameters on exit.

    Runs of one measurement thus start alike, and log nothing. Unlike :func:`guarded`, this context
    keeps the modes, autograd and hooks that are set at its entry. Compute gradients inside as well:
    if a run writes to a weight (say, normalises its prototypes), the graph may need the written
    weight.

    The cost inside :func:`guarded` is two comparisons of all tensors with the copies of the guard,
    and a copy of those that differ; elsewhere it is a copy of all tensors.
    """
    trainer = trainer_of(module)
    with preserved_rng(), _silent(module, trainer), _held(module, trainer, functions=False):
        yield


@contextmanager
def _held(module: nn.Module, trainer: "Trainer | None", *, functions: bool) -> Iterator[None]:
    states = _OPEN.setdefault(module, [])
    outer = states[-1] if states else None
    roots, skipped = _roots(module, trainer)
    # A measurement's hooks record in variables that they close over, which must not be restored.
    # Inside a guard, only functions from before the guard are known, so functions may be entered.
    entered = functions or outer is not None
    held = HeldState(roots, skipped=skipped, outer=outer, functions=entered)
    states.append(held)
    try:
        yield
    finally:
        states.remove(held)
        held.restore()


def _roots(module: nn.Module, trainer: Any) -> tuple[dict[str, Any], list[Any]]:
    """The module, and the optimizers and schedulers that a training step may reach beside it."""
    roots: dict[str, Any] = {"": module}
    optimizers = list(getattr(trainer, "optimizers", None) or ())
    for index, optimizer in enumerate(optimizers):
        roots[f"optimizers[{index}]"] = optimizer
    for index, config in enumerate(getattr(trainer, "lr_scheduler_configs", None) or ()):
        roots[f"lr_schedulers[{index}]"] = config.scheduler
    return roots, [optimizer.state for optimizer in optimizers]


@contextmanager
def _silent(module: nn.Module, trainer: Any) -> Iterator[None]:
    """Keep ``self.log``, loggers and experiments from writing, and the run from stopping early."""
    with ExitStack() as stack:
        for child in module.modules():
            if hasattr(type(child), "log_dict"):  # a LightningModule of either package
                said = dict.fromkeys(("log", "log_dict"), _says_nothing)
                stack.enter_context(_replaced(vars(child), said))
        for package, names in _WRITING.items():
            if package in sys.modules:
                members = vars(sys.modules[package])
                silent = {name: silenced(members[name]) for name in names if members.get(name)}
                stack.enter_context(_replaced(members, silent))
        if trainer is not None:
            before = getattr(trainer, "loggers", [])  # a stand-in may have none
            stack.callback(setattr, trainer, "loggers", before)
            trainer.loggers = [silenced(logger) for logger in before]
            stops = getattr(trainer, "should_stop", False)
            stack.callback(setattr, trainer, "should_stop", stops)
        yield


@contextmanager
def _replaced(attributes: dict[str, Any], others: dict[str, Any]) -> Iterator[None]:
    before = {name: attributes[name] for name in others if name in attributes}
    attributes.update(others)
    try:
        yield
    finally:
        for name in others:
            attributes.pop(name, None)
        attributes.update(before)


def _says_nothing(*_: Any, **__: Any) -> Any:
    return None
