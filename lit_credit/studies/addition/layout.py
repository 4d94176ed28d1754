"""Where the digits of a sum stand in a sequence, and where its carries are."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from lit_credit.utils.ranges import check_range

__all__ = ["AdditionLayout", "PlaceSlots", "carries_in", "longest_run", "place_slots"]


@dataclass(frozen=True)
class AdditionLayout:
    """The positions of ``X + Y = Z EOS``, each number's lowest digit first.

    X and Y have ``digits`` digits, Z one more. The symbols are the ten digits; those of "+", "="
    and "EOS" are 0, and only their positions tell them apart.

    Args:
        digits: digits of X and of Y, 1 to 18; a sum of 18 digits is the largest that int64 holds.

    Raises:
        ValueError: if ``digits`` is out of range.

    Example:
        >>> layout = AdditionLayout(digits=2)
        >>> layout.names
        ('X0', 'X1', '+', 'Y0', 'Y1', '=', 'Z0', 'Z1', 'Z2', 'EOS')
        >>> tokens = layout.encode(torch.tensor([95]), torch.tensor([7]))
        >>> tokens.tolist()
        [[5, 9, 0, 7, 0, 0, 2, 0, 1, 0]]
        >>> [int(number) for number in layout.decode(tokens)]
        [95, 7, 102]
    """

    digits: int = 10

    def __post_init__(self) -> None:
        check_range(1, 18, digits=self.digits)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all positions, in order."""
        x, y, z = (
            [f"{number}{place}" for place in range(count)]
            for number, count in (("X", self.digits), ("Y", self.digits), ("Z", self.digits + 1))
        )
        return (*x, "+", *y, "=", *z, "EOS")

    def index(self, name: str) -> int:
        """The position of that name.

        Raises:
            ValueError: if there is none.
        """
        if name not in self.names:
            raise ValueError(f"{name!r} is no position; expected one of {', '.join(self.names)}.")
        return self.names.index(name)

    @property
    def length(self) -> int:
        """Positions of a sequence."""
        return 3 * self.digits + 4

    @property
    def inputs(self) -> int:
        """Positions that a net reads: all but EOS."""
        return self.length - 1

    @property
    def x(self) -> slice:
        """The positions of X0, X1, .."""
        return slice(0, self.digits)

    @property
    def y(self) -> slice:
        """The positions of Y0, Y1, .."""
        return slice(self.digits + 1, 2 * self.digits + 1)

    @property
    def z(self) -> slice:
        """The positions of Z0, Z1, .."""
        return slice(2 * self.digits + 2, 3 * self.digits + 3)

    @property
    def rows(self) -> slice:
        """The inputs that predict the answer: "=" predicts Z0, and the last Z predicts EOS."""
        return slice(2 * self.digits + 1, 3 * self.digits + 3)

    @property
    def answers(self) -> slice:
        """What :attr:`rows` predict: Z0, Z1, .., EOS."""
        return slice(2 * self.digits + 2, 3 * self.digits + 4)

    def encode(self, x: Tensor, y: Tensor) -> Tensor:
        """The sequences of sums.

        Args:
            x: whole numbers of at most ``digits`` digits, int64 (N,).
            y: the same.

        Returns:
            int64 (N, 3 digits + 4).

        Raises:
            ValueError: if a number is negative or too long.
        """
        for name, number in (("x", x), ("y", y)):
            if number.numel() and not 0 <= int(number.min()) <= int(number.max()) < self._limit:
                raise ValueError(f"`{name}` has numbers outside of 0 to {self._limit - 1}.")
        return self.fill(self._split(x, self.digits), self._split(y, self.digits))

    def fill(self, x: Tensor, y: Tensor) -> Tensor:
        """The sequences of sums whose digits are given, int64 (N, digits), lowest first."""
        tokens = x.new_zeros(len(x), self.length)
        tokens[:, self.x], tokens[:, self.y] = x, y
        tokens[:, self.z] = self._split(self._join(x) + self._join(y), self.digits + 1)
        return tokens

    def decode(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The numbers X, Y and Z of sequences, int64 (N,)."""
        x, y, z = (self._join(tokens[:, part]) for part in (self.x, self.y, self.z))
        return x, y, z

    @property
    def _limit(self) -> int:
        return int(10**self.digits)

    @staticmethod
    def _powers(count: int, like: Tensor) -> Tensor:
        return torch.tensor([10**place for place in range(count)], device=like.device)

    def _split(self, number: Tensor, count: int) -> Tensor:
        return number[:, None] // self._powers(count, number) % 10

    def _join(self, digits: Tensor) -> Tensor:
        total: Tensor = (digits * self._powers(digits.shape[1], digits)).sum(1)
        return total


def carries_in(tokens: Tensor, layout: AdditionLayout) -> Tensor:
    """Which columns of a sum receive a carry: c_i = (z_i - x_i - y_i) mod 10.

    Args:
        tokens: sums, int64 (N, T), that the layout describes.
        layout: where their digits stand.

    Returns:
        bool (N, digits + 1), one a column of Z; the first is False.

    Example:
        >>> layout = AdditionLayout(digits=2)
        >>> carries_in(layout.encode(torch.tensor([95]), torch.tensor([7])), layout)
        tensor([[False,  True,  True]])
    """
    columns = tokens[:, layout.z].clone()
    columns[:, :-1] -= tokens[:, layout.x] + tokens[:, layout.y]
    return columns % 10 == 1


def longest_run(carries: Tensor) -> Tensor:
    """The length of the longest run of True in each row (N, C); int64 (N,).

    Example:
        >>> longest_run(torch.tensor([[True, False, True, True], [False] * 4]))
        tensor([2, 0])
    """
    run = longest = torch.zeros(len(carries), dtype=torch.long, device=carries.device)
    for column in carries.T:
        run = (run + 1) * column
        longest = torch.maximum(longest, run)
    return longest


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
