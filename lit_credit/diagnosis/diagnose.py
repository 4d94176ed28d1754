"""The function ``diagnose``: diagnostics of a net in memory, or of a series of its checkpoints."""

import warnings
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from copy import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn

from lit_credit.callbacks.base.diagnostic import Diagnostic
from lit_credit.callbacks.base.probe import ProbeDiagnostic
from lit_credit.diagnosis.data import as_data
from lit_credit.diagnosis.measuring import Measuring
from lit_credit.diagnosis.result import Diagnosis
from lit_credit.diagnosis.stand import standing, trainer_for
from lit_credit.inspect.batch_loss import LossFunction, check_loss_function
from lit_credit.inspect.plain_module import plain_module
from lit_credit.inspect.state.guard import held
from lit_credit.runs.files import check_folder
from lit_credit.runs.weight_series import weight_series
from lit_credit.utils.both_packages import is_a
from lit_credit.utils.compiled import uncompiled
from lit_credit.utils.paths import local_path
from lit_credit.utils.private_names import trainer_of

__all__ = ["diagnose"]


def diagnose(
    model: nn.Module,
    diagnostics: Diagnostic | Sequence[Diagnostic],
    data: Any = None,
    *,
    loss: LossFunction | None = None,
    checkpoints: Any = None,
    key: str | None = None,
    out: str | Path | None = None,
) -> Diagnosis:
    """Measure diagnostics on a net that is trained already, once or for each of its checkpoints.

    The model is left as it was: weights, gradients, buffers, modes, hooks, random states and the
    Trainer it is attached to, also after an error. Nothing is trained, and nothing is moved.

    Args:
        model: any ``nn.Module``, such as a model of Hugging Face, or a LightningModule; on any
            device and in any mode. Diagnostics run it in eval mode, or in train mode if they have
            ``mode="train"``.
        diagnostics: one or several, such as ``[AttentionMaps(), ResidualNorms()]``. Their schedule
            (``every_n_epochs``) does not count.
        data: a batch, a loader, or a LightningDataModule. None takes the loaders of a
            LightningModule that has some, and no data otherwise. A batch goes to a net as its
            ``forward`` takes it: see :class:`lit_credit.inspect.plain_module.PlainModule`.
        loss: ``loss(model, batch)`` returns a scalar. None takes that of a LightningModule, or the
            ``loss`` in the output of a Hugging Face model for batches with ``labels``. Only some
            diagnostics need a loss.
        checkpoints: paths, a glob pattern, a folder, or pairs of (step, state_dict) or (step,
            path). Each is loaded into the model and measured, in order of steps. A step comes from
            the file (``global_step``), else from the last number in the file's name. None measures
            the model as it is.
        key: where a file holds the state_dict, such as ``"model"``, if that is not clear.
        out: folder for histories, figures, tables and TensorBoard events. A call that was stopped
            goes on from there: a step that has a row is not measured again. None writes nothing.

    Returns:
        The findings by name, which a notebook shows. ``found["residual_norms"].rows`` is the
        history of one diagnostic; ``found.rows`` is a tidy list of all values.

    Raises:
        ValueError: if there are no diagnostics, checkpoints do not fit the model, steps cannot be
            told, or ``out`` holds rows of another diagnosis.
        MisconfigurationException: if diagnostics need data or a loss and there is none; the error
            names them. Also if the first measurement of a diagnostic fails.

    Example:
        >>> import torch
        >>> from lit_credit.callbacks import ResidualNorms
        >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
        >>> _ = nn.init.eye_(net[0].weight)
        >>> found = diagnose(net, ResidualNorms(units=["0", "1"]), torch.tensor([[3.0, 4.0]]))
        >>> found["residual_norms"].values["residual/norm/L02"]
        5.0
    """
    chosen = _copies(diagnostics)
    if loss is not None:
        check_loss_function(loss)
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` is {type(model).__name__}, expected an nn.Module.")
    found = as_data(data)
    net = uncompiled(model)
    is_module = is_a(net, LightningModule)
    module: Any = net if is_module else plain_module(net, loss)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # Lightning itself uses a deprecated torch API.
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")
        # Weights and data that are loaded under inference_mode could not be differentiated.
        stack.enter_context(torch.inference_mode(False))
        folder = _folder(out, stack)
        series = None if checkpoints is None else weight_series(checkpoints, key)
        stack.enter_context(held(module))
        if not net.training:  # for diagnostics that measure in train mode; others switch it off
            for child in module.modules():
                child.training = True
        if is_module:
            for diagnostic in chosen:
                if isinstance(diagnostic, ProbeDiagnostic) and diagnostic.loss is None:
                    diagnostic.loss = loss
        step, epoch = _point_of_training(module)
        trainer = trainer_for(module, chosen, folder, logs=out is not None)
        stack.enter_context(standing(trainer, module, found))
        measuring = Measuring(trainer, module, folder, is_kept=out is not None)
        return measuring.once(step, epoch) if series is None else measuring.each(series)


def _copies(diagnostics: Diagnostic | Sequence[Diagnostic]) -> list[Diagnostic]:
    """Copies, so that diagnostics of a Trainer keep their histories."""
    given: list[Any] = [diagnostics]
    if isinstance(diagnostics, Iterable) and not isinstance(diagnostics, str):
        given = list(diagnostics)
    if not given:
        raise ValueError("`diagnostics` is empty, expected at least one, such as AttentionMaps().")
    for one in given:
        if not isinstance(one, Diagnostic):
            name = one.__name__ if isinstance(one, type) else type(one).__name__
            is_class = isinstance(one, type) and issubclass(one, Diagnostic)
            remedy = f"Give an instance: {name}()." if is_class else "Leave it out."
            raise TypeError(f"`diagnostics` has {name}, expected diagnostics. {remedy}")
    return [copy(one) for one in given]


def _folder(out: str | Path | None, stack: ExitStack) -> Path:
    """The folder of the results; a temporary one if they are only returned."""
    if out is None:
        return Path(stack.enter_context(TemporaryDirectory(prefix="lit_credit_")))
    folder = Path(local_path(out, "out"))
    check_folder(folder, "Give another `out`.")
    return folder


def _point_of_training(module: LightningModule) -> tuple[int, int]:
    """Optimizer steps and completed epochs of the Trainer that the module is attached to."""
    trainer = trainer_of(module)
    if trainer is None:
        return 0, 0
    # `current_epoch` lags behind in the hooks of an epoch's end.
    epochs = trainer.fit_loop.epoch_progress.current
    is_at_end = epochs.started > epochs.processed and trainer.is_last_batch
    return trainer.global_step, epochs.processed + int(is_at_end)
