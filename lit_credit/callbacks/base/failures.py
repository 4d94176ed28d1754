"""Handling measurements that fail, or whose numbers are undefined."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.nn.parameter import is_lazy

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
    "without_shape",
]

_ENDS = (NonFiniteError, SIGTERMException)
"""Errors that are meant to end the run."""


class Attempts:
    """Measures, and lets a run continue if a later measurement fails.

    The first measurement of a run may raise, before any work could be lost. If a later measurement
    raises, including the first of a resumed run, its row is NaN, and one warning tells of it; the
    next measurement is tried again.

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
        """The measured values, with NaN for tags of the first row that were not measured.

        Args:
            measure: makes one measurement and returns its values by tag.
            rows: the rows measured before.
            step: step of the measurement.

        Raises:
            Exception: any error of the first measurement; of a later one only an error that is
                meant to end the run.
        """
        # Every row has the same tags, even if a unit did not run.
        known: dict[str, float] = dict.fromkeys(rows[0]["values"], math.nan) if rows else {}
        try:
            found = measure()
        except _ENDS:
            raise
        except Exception as error:  # of any kind: a measurement runs the user's code
            if self.is_first(rows):
                with named(self._who):
                    raise
            self.tell(step, f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0])
            found = {}
        self._has_measured = True
        return {**known, **found} if found else known

    def tell(self, step: int, reason: str) -> None:
        """Warn of what could not be measured, the first time only."""
        if self.told_at is None:
            self.told_at = step
            rank_zero_warn(
                f"{self._who} could not be measured, or not in full, at step {step}: "
                f"{shortened(reason.rstrip('.'), 500)}. What is missing is NaN, shown as n/a; "
                "later measurements are tried again without another word."
            )


_NAMED = (MisconfigurationException, AttributeError, RuntimeError, TypeError, ValueError)


@contextmanager
def named(who: str) -> Iterator[None]:
    """Begin the text of an error with the name of the diagnostic, unless the text contains it.

    Several diagnostics may have the same argument. The type of the error does not change.

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


def without_shape(callback: Callback, module: LightningModule) -> Exception | None:
    """The error for a module with lazy layers that have not run; None for any other."""
    name = next((name for name, p in module.named_parameters() if is_lazy(p)), None)
    if name is None:
        return None
    return MisconfigurationException(
        f"{type(callback).__name__}: the parameter {name!r} has no shape before a lazy layer has "
        "run. Run a batch through the module before `fit`, or give the Trainer "
        "`num_sanity_val_steps` of 1 or more and validation data."
    )


def missing(callback: Callback, module: LightningModule, what: str, remedy: str) -> Exception:
    """The error for a module that lacks what a diagnostic needs.

    Args:
        callback: the diagnostic.
        module: the module.
        what: the missing attribute or method.
        remedy: a sentence that says what to do.
    """
    return MisconfigurationException(
        f"{type(callback).__name__} needs {what}, which {type(module).__name__} does not have. "
        f"{remedy}"
    )


_WORDS = (
    "can't allocate memory",  # the CPU, by its allocator
    "not enough memory",
    "out of memory",  # CUDA and MPS, if they raise a plain error
    "alloc_failed",  # cuBLAS, cuDNN
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the machine has no memory left.

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
    """Name the diagnostic and a remedy in an error about memory.

    Args:
        diagnostic: has ``reset()``, and ``smaller()``, which returns the remedy.

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
    """Say in one line that a measurement is the first of its history with non-finite values.

    The line is not a warning: the cosine of a vanished gradient is NaN by definition.

    Args:
        rows: the rows measured before.
        step: step of the measurement.
        values: tag to number.
    """
    undefined = [tag for tag, value in values.items() if not math.isfinite(value)]
    # Backwards from the last row: a history with such values mostly has some in its last rows.
    if undefined and all(
        math.isfinite(v) for row in reversed(rows) for v in row["values"].values()
    ):
        more = f", and so are {len(undefined) - 1} other values" if len(undefined) > 1 else ""
        rank_zero_info(
            f"{undefined[0]} is undefined or not finite at step {step}{more}, of {len(values)} "
            "measured; figures say n/a."
        )
