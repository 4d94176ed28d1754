"""What torch says of a first batch that does not fit, in the user's terms."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

import torch
from torch import Tensor

__all__ = ["explain"]

_LONGEST = 300


def explain(error: Exception, batch: Any, net: str, task: str, first: bool) -> NoReturn:
    """Raise what a user can mend as a ValueError that says how, and anything else as it is.

    A RuntimeError or IndexError of the very first batch is taken for sizes that do not fit; of a
    later one for a bug, whose traceback is wanted.

    Args:
        error: that running the net or the loss has raised.
        batch: it was run on.
        net: name of the net.
        task: name of the task.
        first: whether no batch has passed before.
    """
    reason = str(error).strip().partition("\n")[0]
    if isinstance(error, ValueError):
        if "more than 1 value per channel" not in reason:
            raise error
        raise ValueError(
            f"a training batch has one sample, {_shown(batch)}, of which a BatchNorm of {net} can "
            "take no variance. Choose a `batch_size` that leaves no last batch of 1, or drop it."
        ) from error
    out_of_memory = isinstance(error, torch.cuda.OutOfMemoryError) or "allocate" in reason
    if not first or out_of_memory:
        raise error
    raise ValueError(
        f"the first batch does not pass through {net} and {task}: {reason} "
        f"The batch: {_shown(batch)}. Make the sizes of data, net and task agree. "
        "If it is not the sizes, LIT_CREDIT_TRACEBACK=1 shows where."
    ) from error


def _shown(batch: Any) -> str:
    text = _described(batch)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _described(value: Any) -> str:
    """Types and shapes; of whole numbers the range too, since some of them are classes."""
    if isinstance(value, Tensor):
        text = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
        if value.dtype in (torch.int64, torch.int32) and value.numel():
            with suppress(RuntimeError):  # a GPU that has met a wrong index computes no more
                return f"{text} from {int(value.min())} to {int(value.max())}"
        return text
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_described(item)}' for key, item in value.items())}}}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_described, value))})"
    return type(value).__name__
