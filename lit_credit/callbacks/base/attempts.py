"""What becomes of a measurement that fails."""

import math
from collections.abc import Callable, Sequence

from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_credit.callbacks.base.named import named
from lit_credit.inspect.finite import NonFiniteError
from lit_credit.runs.history import Row
from lit_credit.utils.short_text import shortened

__all__ = ["Attempts"]

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
