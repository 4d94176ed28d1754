"""Out of memory in a measurement."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lit_credit.utils.short_text import shortened

__all__ = ["is_out_of_memory", "out_of_memory_named"]

_WORDS = (
    "can't allocate memory",  # the CPU, by its allocator
    "not enough memory",
    "out of memory",  # CUDA and MPS, where they raise a plain error
    "alloc_failed",  # cuBLAS, cuDNN
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the machine, has no memory left.

    Example:
        >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes differ"))
        (True, False)
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in _WORDS)


@contextmanager
def out_of_memory_named(diagnostic: Any) -> Iterator[None]:
    """Name the diagnostic, and what takes less, in an error about memory.

    Args:
        diagnostic: with ``reset()``, and ``smaller()``, the argument and value to set.

    Raises:
        MisconfigurationException: in place of the error.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        remedy = diagnostic.smaller()
        diagnostic.reset()  # what was gathered is memory too
        reason = shortened(str(error).partition("\n")[0] or type(error).__name__, 200)
        raise MisconfigurationException(
            f"{type(diagnostic).__name__} ran out of memory in its measurement: {remedy} "
            f"({type(error).__name__}: {reason})"
        ) from error
