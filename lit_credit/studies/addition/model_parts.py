"""The parts of the micro adder."""

import math
from collections import OrderedDict
from typing import Literal, cast

import torch
from torch import Tensor, nn

from lit_credit.studies.addition.layout import AdditionLayout

__all__ = ["AdderAttention", "AdderEmbedding", "AdderFFN", "DigitCircle", "SpiralPositions"]

TOKEN, POSITION = 2, 3
"""Features of the token part and of the position part of the stream."""

WIDTH = TOKEN + POSITION


class DigitCircle(nn.Module):
    """Ten points of an arc: E[d] = A (cos(s + d k), sin(s + d k)), with A, s and k learned."""

    def __init__(self) -> None:
        super().__init__()
        self.radius, self.start, self.step = (
            nn.Parameter(torch.tensor(value)) for value in (2.5, -1.2, 0.29)
        )

    def points(self, digits: Tensor) -> Tensor:
        """E of digits that are floats of any shape (...), (2, ...)."""
        angle = self.start + self.step * digits
        return self.radius * torch.stack([angle.cos(), angle.sin()])

    def table(self) -> Tensor:
        """E, (10, 2)."""
        return self.points(torch.arange(10).to(self.step)).T

    def forward(self, tokens: Tensor) -> Tensor:
        """Map digits (N, T) to (N, T, 2)."""
        return nn.functional.embedding(tokens, self.table())


class SpiralPositions(nn.Module):
    """Vectors of the positions: column i of X, Y and Z shares a point of a spiral.

    The point is (r cos(2 pi i / 10 + phi), r sin(2 pi i / 10 + phi), c i + c_0) with r = 3.5, c =
    .15 and the others 0. "+" has the zero vector; "=" and the highest digit of Z have learned ones.

    Args:
        layout: names the positions.
        learned: whether r, phi, c and c_0 are learned.
    """

    spiral: Tensor

    def __init__(self, layout: AdditionLayout, learned: bool) -> None:
        super().__init__()
        self.digits = layout.digits
        spiral = torch.tensor([3.5, 0.0, 0.15, 0.0])
        if learned:
            self.spiral = nn.Parameter(spiral)
        else:
            self.register_buffer("spiral", spiral)
        self.equals, self.last = (nn.Parameter(0.02 * torch.randn(POSITION)) for _ in range(2))

    def forward(self) -> Tensor:
        """The vectors of all inputs, (T, 3)."""
        radius, phase, slope, offset = self.spiral
        i = torch.arange(self.digits).to(self.spiral)
        angle = 2 * math.pi / 10 * i + phase
        column = torch.stack(
            [radius * angle.cos(), radius * angle.sin(), slope * i + offset], 1
        )  # (digits, 3)
        plus = torch.zeros_like(column[:1])
        return torch.cat([column, plus, column, self.equals[None], column, self.last[None]])


class AdderEmbedding(nn.Module):
    """The stream's first value: two features of the digit beside three of the position.

    Args:
        layout: names the positions.
        learned_positions: whether the spiral is learned.
    """

    def __init__(self, layout: AdditionLayout, learned_positions: bool) -> None:
        super().__init__()
        self.digits = DigitCircle()
        self.positions = SpiralPositions(layout, learned_positions)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map digits (N, T) to (N, T, 5)."""
        digits, positions = self.digits(tokens), self.positions()[: tokens.shape[1]]
        return torch.cat([digits, positions.expand(len(digits), -1, -1)], -1)


class AdderAttention(nn.Module):
    """One causal head, whose queries and keys read the position and whose values read the digit.

    Queries are the keys with each pair of features turned by one learned angle; without it the
    attention of i to j would be that of j to i.

    Args:
        qk_width: features of queries and keys.
        output: ``rank_one`` maps the digit part through the readout's matrix H (2, 5) and then
            by a b^T, a for what is read in the space of values, b for what is written to the
            stream; ``full`` by a matrix of its own.
        head: the readout, nn.Linear(5, 2), whose weight is H.
    """

    def __init__(self, qk_width: int, output: Literal["rank_one", "full"], head: nn.Linear) -> None:
        super().__init__()
        self.qk = nn.Linear(POSITION, qk_width, bias=False)
        self.angle = nn.Parameter(torch.zeros(()))
        self.head = head
        self.rank_one = output == "rank_one"
        if self.rank_one:
            a, b = nn.Linear(WIDTH, 1, bias=False), nn.Linear(1, WIDTH, bias=False)
            nn.init.zeros_(b.weight)
            self.output: nn.Module = nn.Sequential(OrderedDict(a=a, b=b))
        else:
            self.output = nn.Linear(TOKEN, WIDTH, bias=False)

    def queries_and_keys(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Of the normed stream's position part (..., T, 3), both (..., T, qk_width)."""
        k: Tensor = self.qk(z)
        pairs = k.shape[-1] // 2
        even, odd = k[..., : 2 * pairs : 2], k[..., 1 : 2 * pairs : 2]
        cos, sin = self.angle.cos(), self.angle.sin()
        turned = torch.stack([cos * even - sin * odd, sin * even + cos * odd], -1).flatten(-2)
        return torch.cat([turned, k[..., 2 * pairs :]], -1), k

    def weights(self, q: Tensor, k: Tensor, rows: slice = slice(None)) -> Tensor:
        """The attention of the queries at ``rows`` to all keys: (..., R, T)."""
        scores = q[..., rows, :] @ k.mT * k.shape[-1] ** -0.5
        allowed = torch.ones(k.shape[-2], k.shape[-2], device=k.device).tril().bool()[rows]
        weights: Tensor = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        return weights

    def forward(self, z: Tensor) -> Tensor:
        """Map the normed stream (N, T, 5) to what is added to the stream."""
        q, k = self.queries_and_keys(z[..., TOKEN:])
        mixed = self.weights(q, k) @ z[..., :TOKEN]  # (N, T, 2)
        if self.rank_one:
            mixed = mixed @ self.head.weight
        added: Tensor = self.output(mixed)
        return added

    def matrix(self) -> Tensor:
        """The map from the mixed digit parts to the stream, (5, 2)."""
        a, b = self.factors()
        if a is None or b is None:
            return cast(nn.Linear, self.output).weight
        product: Tensor = b[:, None] @ (a[None] @ self.head.weight.T)
        return product

    def factors(self) -> tuple[Tensor | None, Tensor | None]:
        """The a (5) and the b (5) of an output of rank one; None and None of a full one."""
        if not self.rank_one:
            return None, None
        a, b = (cast(nn.Linear, layer).weight for layer in cast(nn.Sequential, self.output))
        return a[0], b[:, 0]


class AdderFFN(nn.Module):
    """Two linear maps with an exact GELU between.

    Args:
        hidden: hidden units.
        bias: of the hidden units.
        head: takes the place of the second map, transposed, if there is one; nn.Linear(5, 2).
    """

    def __init__(self, hidden: int, bias: bool, head: nn.Linear | None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, hidden, bias=bias)
        self.gelu = nn.GELU()
        self.head = head
        self.fc2 = nn.Linear(hidden, WIDTH, bias=False) if head is None else None

    def forward(self, z: Tensor) -> Tensor:
        """Map (..., 5) to (..., 5)."""
        hidden = self.gelu(self.fc1(z))
        added: Tensor = hidden @ self.matrix().T if self.fc2 is None else self.fc2(hidden)
        return added

    def matrix(self) -> Tensor:
        """The weight of the second map, (5, hidden)."""
        return cast(nn.Linear, self.head).weight.T if self.fc2 is None else self.fc2.weight
