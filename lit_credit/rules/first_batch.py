"""Explaining the errors of a first batch that does not fit, in the user's terms."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor

from lit_credit.utils.nested import described
from lit_credit.utils.short_text import shortened

__all__ = ["EXPLAINED", "check_loss", "explain", "explaining"]

EXPLAINED = (
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
)
"""Errors that :func:`explain` knows; others, such as those that stop a search, pass through."""


@contextmanager
def explaining(batch: Any, rule: Any, passed: set[str], what: str) -> Iterator[None]:
    """Explain errors of a first batch in the user's terms.

    Args:
        batch: the batch that runs inside the ``with``.
        rule: an object with a ``net`` and a ``task``.
        passed: the stages that have passed before; ``what`` is added if no error is raised.
        what: the stage, ``training`` or ``evaluation``.
    """
    try:
        yield
    except EXPLAINED as error:
        names = type(rule.net).__name__, type(rule.task).__name__
        explain(error, batch, *names, first=what not in passed)
    passed.add(what)


def explain(error: Exception, batch: Any, net: str, task: str, first: bool) -> NoReturn:
    """Raise a ValueError with a remedy if the user can fix the error, else the error itself.

    An error of the first batch means that net, task and data do not fit together. An error of a
    later batch is taken as a bug, whose traceback is needed.

    Args:
        error: raised by the net or by the loss.
        batch: the batch that they ran on.
        net: name of the net.
        task: name of the task.
        first: whether no batch has passed before.

    Raises:
        ValueError: naming the batch, the net and the task.
        Exception: the error itself, if it is a bug or its message suffices.
    """
    reason = shortened(str(error).strip().partition("\n")[0], 600)
    if isinstance(error, ValueError):
        if "more than 1 value per channel" not in reason:
            raise error
        raise ValueError(
            f"a training batch has one sample, {described(batch)}, of which a BatchNorm of {net} "
            "can take no variance. Choose a `batch_size` that leaves no last batch of 1, or drop "
            "it."
        ) from error
    out_of_memory = isinstance(error, torch.cuda.OutOfMemoryError) or "allocate" in reason
    is_label = isinstance(error, IndexError) and reason.startswith("Target ")
    if out_of_memory or not (first or is_label):
        raise error
    if isinstance(error, RuntimeError | IndexError):
        reason = f"{reason.rstrip('.')}."
        remedy = _remedy(reason)
    else:
        reason = f"{type(error).__name__}: {reason}."
        remedy = f"Make {task} hand {net} what it takes, and read what it returns."
    raise ValueError(
        f"{'the first' if first else 'a'} batch does not pass through {net} and {task}: {reason} "
        f"The batch: {described(batch)}. {remedy} LIT_CREDIT_TRACEBACK=1 shows where."
    ) from error


def _remedy(reason: str) -> str:
    """The remedy of an error of torch about sizes or types of numbers."""
    if any(sign in reason for sign in ("dtype", "scalar type", "can't be cast")):
        return (
            "The types of numbers differ: a net and most losses take float32 (`x.float()` of "
            "torch, `x.astype('float32')` of NumPy, whose default is float64), class numbers are "
            "int64. Have the datamodule hand out these types. If it is not the types,"
        )
    return "Make the sizes of data, net and task agree. If it is not the sizes,"


def check_loss(loss: Any, task: str) -> None:
    """Refuse a loss that is not one number; torch and Lightning report it late and at length.

    Raises:
        ValueError: if the loss is not a tensor with one entry.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise ValueError(
            f"the loss of {task} is {described(loss)}, expected a tensor with one number: the mean "
            "over the samples of a batch. Leave the `reduction` of a torch loss at 'mean'."
        )
