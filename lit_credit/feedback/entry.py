"""Where the error arrives: what is attached there, or cut."""

from typing import Any, Protocol

from torch import Tensor

from lit_credit.feedback.units import UnitGraphs

__all__ = ["Cut", "Entry", "check_one_tensor", "check_output"]


class Entry(Protocol):
    """Attaches credit to the graphs of the units, where the error arrives."""

    def __call__(self, value: Tensor, graphs: UnitGraphs) -> Tensor:
        """Attach all units to the net's output."""

    def extend(self, name: str, value: Tensor, graphs: UnitGraphs) -> Tensor:
        """Attach one more unit to its detached output."""


class Cut:
    """Replaces the tensor whose gradient is the error by a leaf."""

    leaf: Tensor

    def __call__(self, value: Tensor, graphs: UnitGraphs) -> Tensor:
        """The tensor as a leaf."""
        check_one_tensor(value)
        self.leaf = value.detach().requires_grad_()
        return self.leaf

    def extend(self, name: str, value: Tensor, graphs: UnitGraphs) -> Tensor:
        """A copy of the tensor as a leaf."""
        return self(value, graphs).clone()  # the next operation may work in place


def check_one_tensor(value: Any) -> None:
    """Refuse a net with several outputs, at which there is no one error.

    Raises:
        ValueError: if ``value`` is not a tensor.
    """
    if not isinstance(value, Tensor):
        raise ValueError(
            f"the net's output is {type(value).__name__}, but this rule needs one tensor to "
            "take the error at. Wrap the net so that it returns a tensor."
        )


def check_output(value: Any) -> None:
    """Refuse outputs of a net at which samples have no errors of their own.

    Raises:
        ValueError: if the output is not one tensor (N, C) or with more dimensions.
    """
    check_one_tensor(value)
    if value.dim() < 2:
        raise ValueError(
            f"the net's output is {tuple(value.shape)}, expected (N, C) or more dimensions. Let "
            "the net return (N, 1) where each sample has one number."
        )
