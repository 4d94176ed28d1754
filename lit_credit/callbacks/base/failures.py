"""What becomes of a measurement that fails, or whose numbers are undefined."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_credit.inspect.finite import NonFiniteError
from lit_credit.runs.history import Row
from lit_credit.utils.short_text import shortened

__all__ = [
    "Attempts",
    "is_out_of_memory",
    "missing",
    "named",
    "out_of_memory_named",
    "tell_undefined",
]

_ENDS = (NonFiniteError, SIGTERMException)
"""Errors that are meant to end the run."""


class Attempts:
    """Measures, and lets a run go on whose later measurements fail.

    The first measurement of a run, before any work could be lost, may raise. Of a later one, the
    first of a resumed run among them, any error becomes a row of NaN, and one warning; the next one
    is tried again.

    Args:
        who: name of the diagnostic, for the warning.
    """

    def __init__(self, who: str) -> None:
        self._who = who
        self._has_measured = False
        self.told_at: int | None = None
        """Step of the only warning."""

    def is_first(self, rows: Sequence[Row]) -> bool:
        """Whether nothing has been measured before, in this process or in the rows."""
        return not rows and not self._has_measured

    def values(
        self, measure: Callable[[], dict[str, float]], rows: Sequence[Row], step: int
    ) -> dict[str, float]:
        """The tags of the first row, if there is one, with the values measured, or NaN.

        Args:
            measure: one measurement, by tag.
            rows: measured before.
            step: of the measurement.

        Raises:
            Exception: what the first measurement raises; of a later one only what is meant to end
                the run.
        """
        # The same tags in every row, also where a unit did not run.
        known: dict[str, float] = dict.fromkeys(rows[0]["values"], math.nan) if rows else {}
        try:
            found = measure()
        except _ENDS:
            raise
        except Exception as error:  # whatever it is: the user's own code runs in a measurement
            if self.is_first(rows):
                with named(self._who):
                    raise
            self.tell(step, f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0])
            found = {}
        self._has_measured = True
        return {**known, **found} if found else known

    def tell(self, step: int, reason: str) -> None:
        """Warn, the first time, of what could not be measured."""
        if self.told_at is None:
            self.told_at = step
            rank_zero_warn(
                f"{self._who} could not be measured, or not in full, at step {step}: "
                f"{shortened(reason.rstrip('.'), 500)}. What is missing is NaN, shown as n/a; "
                "training goes on, and later measurements are tried again without another word."
            )


_NAMED = (MisconfigurationException, AttributeError, RuntimeError, TypeError, ValueError)


@contextmanager
def named(who: str) -> Iterator[None]:
    """Begin the text of an error with the name of the diagnostic, unless it says it already.

    Several diagnostics may have the same argument; the type of the error stays as it is.

    Args:
        who: name of the diagnostic.
    """
    try:
        yield
    except NonFiniteError:
        raise
    except _NAMED as error:
        if len(error.args) == 1 and isinstance(error.args[0], str) and who not in error.args[0]:
            error.args = (f"{who}: {error.args[0]}",)
        raise


def missing(callback: Callback, module: LightningModule, what: str, remedy: str) -> Exception:
    """The error for a module that lacks what a diagnostic needs.

    Args:
        callback: the diagnostic.
        module: the module.
        what: what is missing.
        remedy: a sentence.
    """
    return MisconfigurationException(
        f"{type(callback).__name__} needs {what}, which {type(module).__name__} does not have. "
        f"{remedy}"
    )


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


def tell_undefined(rows: Sequence[Row], step: int, values: Mapping[str, float]) -> None:
    """Say, in one line, that a measurement is the first in its history with values not finite.

    It is no warning: the cosine of a gradient that has vanished is NaN by right.

    Args:
        rows: measured before.
        step: of the measurement.
        values: tag to number.
    """
    undefined = [tag for tag, value in values.items() if not math.isfinite(value)]
    # From the last row backwards: where there are some, most rows have some.
    if undefined and all(
        math.isfinite(v) for row in reversed(rows) for v in row["values"].values()
    ):
        more = f", and so are {len(undefined) - 1} other values" if len(undefined) > 1 else ""
        rank_zero_info(
            f"{undefined[0]} is undefined or not finite at step {step}{more}, of {len(values)} "
            "measured; figures say n/a."
        )
