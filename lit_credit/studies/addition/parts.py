"""What there is to see in a net that adds."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

__all__ = ["AdderParts"]


class AdderParts(NamedTuple):
    """The parts of a one-layer, one-head net that adds digit by digit, as it uses them.

    T inputs, of which the last R predict the answer; a stream of 5 features, 2 of the digit and 3
    of the position. For the positions' names see
    :class:`lit_credit.studies.addition.layout.AdditionLayout`.
    """

    digits: Tensor
    """The points of the digits, (10, 2)."""
    queries: Tensor
    """Of the normed positions, (T, qk_width)."""
    keys: Tensor
    """The same."""
    attention: Tensor
    """Of the rows that predict the answer, (R, T)."""
    output: Tensor
    """What turns a mean of the digits' points into what attention adds, gain included: (5, 2)."""
    read: Tensor | None
    """a (5) of an attention output b a^T, in the space of values; None where it is no product."""
    write: Tensor | None
    """b (5), in that of the stream."""
    gains: Mapping[str, Tensor]
    """Name of a norm to its gain (5); norms that share one have one entry."""
