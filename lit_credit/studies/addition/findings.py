"""All that a sheet about a net that adds is drawn from."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from lit_credit.studies.addition.digit_readout import DigitReadout
from lit_credit.studies.addition.layout import AdditionLayout
from lit_credit.studies.addition.parts import AdderParts

__all__ = ["AdderFindings"]


class AdderFindings(NamedTuple):
    """One measurement of a net of C columns Z0 .. and R answers, those and "EOS"."""

    layout: AdditionLayout
    parts: AdderParts
    sums: int
    """Uniform sums that were measured."""
    exact: float
    """Share of them whose every answer is right."""
    token_accuracy: float
    """Share of right answers."""
    errors: Tensor
    """Share of wrong digits by column: of all, without, and with a carry into it, (C, 3)."""
    differences: Tensor
    """Counts of predicted - target mod 10, without and with a carry, (2, 10)."""
    runs: Tensor
    """Share of right sums by their longest run of carries, from 0, (C,)."""
    ratio: Tensor
    """Place-value ratio of the columns Z1 .. Z(digits - 1), (digits - 1,)."""
    ratios: Tensor
    """Ratios that were forced, (K,)."""
    forced: Tensor
    """Share of right sums at each, (K,)."""
    without: Mapping[str, float]
    """Name of a source of the column below to the share of right sums without it."""
    readout: DigitReadout
    """What attention reads of a digit."""
    reference: Mapping[str, Tensor]
    """Gains of the norms of another run, by name; empty if there is none."""
