"""Where the digits of a sum stand in a sequence."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["AdditionLayout"]


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
        if not 1 <= self.digits <= 18:
            raise ValueError(f"`digits` is {self.digits}, expected 1 to 18.")

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
