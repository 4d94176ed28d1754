"""A feedback matrix and the weight that it stands for."""

from typing import NamedTuple

from torch import Tensor

__all__ = ["FeedbackPair"]


class FeedbackPair(NamedTuple):
    """A fixed matrix B and the weight W of its shape; None where no single weight stands there."""

    feedback: Tensor
    weight: Tensor | None
