"""A word about measurements that are NaN or inf."""

import math
from collections.abc import Mapping, Sequence

from lightning.pytorch.utilities import rank_zero_info

from lit_credit.runs.history import Row

__all__ = ["tell_undefined"]


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
