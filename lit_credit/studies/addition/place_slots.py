"""Which inputs the attention of a column should look at."""

from typing import NamedTuple

import torch
from torch import Tensor

from lit_credit.studies.addition.layout import AdditionLayout

__all__ = ["PlaceSlots", "place_slots"]


class PlaceSlots(NamedTuple):
    """For each of the columns C = Z1 .. Z(digits - 1): where it is predicted, and from what."""

    rows: Tensor
    """The row of the answer, int64 (C,)."""
    own: Tensor
    """The positions of X_i and Y_i, int64 (C, 2)."""
    leak: Tensor
    """Those of X_(i-1), Y_(i-1) and Z_(i-1), which tell of the carry, int64 (C, 3)."""


def place_slots(layout: AdditionLayout) -> PlaceSlots:
    """The slots of all columns that have both digits of their own and a column below.

    Example:
        >>> place_slots(AdditionLayout(digits=2)).leak.tolist()  # X0 X1 + Y0 Y1 = Z0 ..
        [[0, 3, 6]]
    """
    i = torch.arange(1, layout.digits)
    x, y, z = layout.x.start + i, layout.y.start + i, layout.z.start + i
    return PlaceSlots(i, torch.stack([x, y], 1), torch.stack([x, y, z], 1) - 1)
