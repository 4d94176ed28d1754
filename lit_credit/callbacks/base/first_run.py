"""Checking, before anything is measured, that a module runs on its data and has what is needed."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule

from lit_credit.callbacks.base.failures import is_out_of_memory
from lit_credit.callbacks.base.probe import ProbeDiagnostic
from lit_credit.inspect.batch_loss import check_batch_loss, check_run
from lit_credit.inspect.plain_module import PlainModule
from lit_credit.inspect.state.guard import guarded
from lit_credit.utils.nested import cloned

__all__ = ["check_first_run"]


def check_first_run(module: LightningModule, diagnostics: Iterable[Callback], batch: Any) -> None:
    """Refuse diagnostics that need a loss where there is none, all of them in one error.

    A :class:`PlainModule` runs once on the batch, without gradients, in each mode that the
    diagnostics have, and is left unchanged. Another module does not run: whether its loss can be
    had is known from its methods.

    Args:
        module: the module to be measured.
        diagnostics: the callbacks that will measure it. Those with a ``loss`` of their own are not
            asked for, and neither are those that run the module on no probe.
        batch: the first batch, on the module's device.

    Raises:
        MisconfigurationException: if the module does not run on the batch, or if diagnostics miss a
            loss; the error names them and the remedies.
    """
    asking = [d for d in diagnostics if isinstance(d, ProbeDiagnostic) and d.loss is None]
    reasons: dict[str, str] = {}
    for mode in dict.fromkeys(d.mode for d in asking):
        measured = [type(d).__name__ for d in asking if d.needs_loss and d.mode == mode]
        if isinstance(module, PlainModule):
            reason = _missing_loss(module, batch, train=mode == "train")
        else:
            reason = _said(check_batch_loss, module) if measured else None
            if reason is None:
                check_run(module)
        if reason is not None:
            reasons |= dict.fromkeys(measured, reason)
    if reasons:
        names, reason = ", ".join(reasons), next(iter(reasons.values()))
        raise MisconfigurationException(
            f"{names} {'needs' if len(reasons) == 1 else 'need'} a loss, but {reason} Otherwise "
            f"leave out {names}."
        )


def _missing_loss(module: PlainModule, batch: Any, *, train: bool) -> str | None:
    """Why what the net returns is not a loss; None if it is."""
    with guarded(module, train=train), torch.no_grad():
        try:
            found = module.run_batch(cloned(batch))
        except Exception as error:  # of any kind: the net is the user's code
            if is_out_of_memory(error) or isinstance(error, MisconfigurationException):
                raise
            raise module.failure(batch, error) from error
        return _said(module.loss_of, found, batch)


def _said(check: Callable[..., object], *arguments: Any) -> str | None:
    """The text of the error that a check raises; None if it passes."""
    try:
        check(*arguments)
    except MisconfigurationException as error:
        return str(error)
    return None
