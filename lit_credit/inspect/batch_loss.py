"""Computing the training loss of any LightningModule outside of its training."""

from collections.abc import Callable
from functools import partial
from inspect import Parameter, signature
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lit_credit.inspect.plain_module import PlainModule
from lit_credit.inspect.state.guard import isolated
from lit_credit.protocols import ModuleProtocol, method
from lit_credit.utils.nested import cloned

__all__ = [
    "LossFunction",
    "batch_loss",
    "check_batch_loss",
    "check_loss_function",
    "check_run",
    "loss_source",
    "name_of",
    "own_batch_loss",
]

LossFunction = Callable[[LightningModule, Any], Any]
"""``loss(module, batch)`` returns a scalar tensor. The declared type is ``Any``, since jsonargparse
would otherwise refuse functions without annotations."""

_REMEDY = (
    "Give the module a method `batch_loss(batch)` that returns its scalar loss, or the callback "
    "`loss`, a function of (module, batch)."
)


def name_of(loss: Callable[..., Any]) -> str:
    """The import path of a function, also inside a ``partial``, or of a callable's type."""
    if isinstance(loss, partial):
        # Numbers and text only: the text of other values may differ in the next process.
        given = {k: v for k, v in loss.keywords.items() if isinstance(v, int | float | str)}
        return f"{name_of(loss.func)} {given}"
    named = loss if hasattr(loss, "__qualname__") else type(loss)
    return f"{named.__module__}.{named.__qualname__}"


def check_loss_function(loss: Any) -> None:
    """Refuse a callback's ``loss`` that cannot be called with a module and a batch.

    Raises:
        ValueError: if it cannot; the error names the function and its parameters.
    """
    try:
        found = signature(loss)
    except (TypeError, ValueError):  # a C function, or not a function: the call will show
        return
    try:
        found.bind(None, None)
    except TypeError as error:
        raise ValueError(
            f"`loss` is {name_of(loss)}{found}, expected a function of (module, batch) that "
            "returns a scalar loss."
        ) from error


def check_batch_loss(module: LightningModule) -> None:
    """Refuse a module whose loss cannot be computed without training it.

    Raises:
        MisconfigurationException: if the module has no ``batch_loss`` and its ``training_step``
            steps the optimizer itself, or fetches its own batches.
    """
    if _own_loss(module) is not None:
        return
    kind = type(module).__name__
    if not module.automatic_optimization:
        raise MisconfigurationException(
            f"{kind} optimizes manually: its `training_step` would train on the probe. {_REMEDY}"
        )
    if "dataloader_iter" in signature(module.training_step).parameters:
        raise MisconfigurationException(
            f"{kind}.training_step fetches its own batches (`dataloader_iter`), so it cannot be "
            f"run on the probe. {_REMEDY}"
        )


def check_run(module: LightningModule) -> None:
    """Refuse a module that cannot be run on a batch without training it.

    What a module does with a batch is known from its ``run_batch``, its ``batch_loss`` and its
    ``training_step``. ``forward`` may take any part of the batch, and ``validation_step`` may run
    another net, such as a teacher or a sampler; so they are not run in place of these.

    Raises:
        MisconfigurationException: if the module has none that runs without an optimizer's step.
    """
    if method(module, ModuleProtocol.run_batch) is None:
        try:
            check_batch_loss(module)
        except MisconfigurationException as error:
            run = "A method `run_batch(batch)` that runs the net will do where no loss is measured."
            raise MisconfigurationException(f"{error} {run}") from None


def batch_loss(
    module: LightningModule, batch: Any, batch_idx: int = 0, given: LossFunction | None = None
) -> Tensor:
    """Compute the training loss of any LightningModule on a batch, without a trace in the module.

    The loss is that of ``given(module, batch)`` if ``given`` is not None; else that of the method
    ``module.batch_loss(batch)``, which lit_credit's rules have; else what ``training_step``
    returns. It is computed on a copy of the batch, logs nothing, and is :func:`isolated`: two
    losses of one batch see the same state and the same random numbers.

    Raises:
        MisconfigurationException: if the loss is not a scalar.
    """
    with isolated(module):
        return own_batch_loss(module, batch, batch_idx, given)


def own_batch_loss(
    module: LightningModule, batch: Any, batch_idx: int = 0, given: LossFunction | None = None
) -> Tensor:
    """:func:`batch_loss` for a caller that isolates the run itself, gradients included."""
    own, batch, source = _own_loss(module), cloned(batch), loss_source(module, given)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        module.all_gather = _waits_forever  # type: ignore[method-assign]
    if given is not None:
        measured: Any = module.net if isinstance(module, PlainModule) else module
        loss = given(measured, batch)
    elif own is not None:
        loss = own(batch)
    else:
        check_batch_loss(module)
        loss = _step_loss(module, batch, batch_idx)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise MisconfigurationException(f"{source} returns {found}, not a scalar loss. {_REMEDY}")
    return loss.reshape(())


def loss_source(module: LightningModule, given: LossFunction | None = None) -> str:
    """Name of the function that :func:`batch_loss` runs, for errors."""
    if isinstance(module, PlainModule):
        own = module.given_loss is None and given is None
        return f"{type(module).__name__}.forward" if own else "the given `loss`"
    name = "training_step" if _own_loss(module) is None else "batch_loss"
    return f"{type(module).__name__}.{name}" if given is None else "the given `loss`"


def _own_loss(module: LightningModule) -> Callable[[Any], Any] | None:
    """The module's method ``batch_loss``; None if it is missing, or is a metric or layer."""
    own = method(module, ModuleProtocol.batch_loss)
    return None if isinstance(own, nn.Module) else own


def _waits_forever(*_: Any, **__: Any) -> Any:
    raise MisconfigurationException(
        "the loss calls `all_gather`, but is run here by one process for itself, which would wait "
        "for the others forever. Give the module a method `batch_loss(batch)`, or the callback a "
        "`loss`, a function of (module, batch), that does without."
    )


def _step_loss(module: LightningModule, batch: Any, batch_idx: int) -> Any:
    arguments = (batch, batch_idx)
    loss = module.training_step(*arguments[: _positional(module.training_step)])
    return loss.get("loss") if isinstance(loss, dict) else loss


def _positional(step: Any) -> int:
    """How many of ``(batch, batch_idx)`` the step takes."""
    parameters = signature(step).parameters.values()
    if any(p.kind is Parameter.VAR_POSITIONAL for p in parameters):
        return 2
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds for p in parameters)
