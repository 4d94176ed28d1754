"""Credits of units: as dense tensors or products, normalised, in the shapes of the units."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Size, Tensor
from torch.nn.functional import linear

__all__ = [
    "Credits",
    "Factors",
    "Feedback",
    "channel_dim",
    "check_rows",
    "in_shape",
    "normalized_credits",
    "rms_normalized",
    "rows_of",
]


class Factors:
    """A credit of low rank, ``rows @ matrix.T``.

    Args:
        rows: errors (..., C).
        matrix: a matrix (F, C).
        shared: several units use this credit, so that the product is kept once it is made.
    """

    def __init__(self, rows: Tensor, matrix: Tensor, shared: bool = False) -> None:
        self.rows = rows
        self.matrix = matrix
        self.shared = shared
        self._product: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor]:
        """The two factors."""
        return iter((self.rows, self.matrix))

    def product(self) -> Tensor:
        """The credit (..., F)."""
        if self._product is not None:
            return self._product
        product = linear(self.rows, self.matrix)
        if self.shared:
            self._product = product
        return product


class Credits(NamedTuple):
    """Functions that compute the credits of one backward pass, each from the name of its unit.

    Attributes:
        dense: returns the credit, in the shape of the unit's output.
        factors: returns the credit as a product, or None if it is not a product.
    """

    dense: Callable[[str], Tensor]
    factors: Callable[[str], Factors | None] = lambda _: None


Feedback = Callable[[Tensor, Mapping[str, Size], Tensor | float], Credits]
"""Computes credits from an error, the shapes of the units' outputs and the scale of the loss."""


def rms_normalized(
    rows: Tensor, samples: Tensor | float, eps: float = 1e-6, credit: Tensor | None = None
) -> Tensor:
    """Credit of unit root mean square per sample: ``a / (rms(a) + eps) / samples``.

    The rms is that of the credit of a per-sample loss. A mean loss divides every credit by the
    number of samples. So the credit is multiplied by this number first, and divided again at the
    end.

    Args:
        rows: the rows to scale, (..., d); a gradient of a mean over ``samples``.
        samples: rows that the loss averages over; divided by the scale if the loss has one.
        eps: added to the rms.
        credit: the credit a, if ``rows`` are only a factor of it; None if ``rows`` are the credit.

    Example:
        >>> rms_normalized(torch.tensor([[3.0, 4.0]]), samples=1)
        tensor([[0.8485, 1.1314]])
    """
    credit = rows if credit is None else credit
    root_d = credit.shape[-1] ** 0.5
    rms = torch.linalg.vector_norm(credit, dim=-1, keepdim=True) * (samples / root_d)
    normalized: Tensor = rows / (rms.abs() + eps)  # a negative scale keeps its sign in `rows`
    return normalized


def normalized_credits(
    credits: Credits, shapes: Mapping[str, Size], scale: Tensor | float
) -> Credits:
    """Credits of unit root mean square, each scaled when it is asked for.

    A credit (N, T, d) is scaled position by position, a feature map (N, C, H, W) sample by sample.
    A credit that is a product is scaled row by row, before it takes the shape of its unit.

    Args:
        credits: the credits of the units.
        shapes: the shapes of the units' outputs.
        scale: factor on the loss.

    Example:
        >>> plain = Credits(lambda name: torch.tensor([[3.0, 4.0]]))
        >>> normalized_credits(plain, {"unit": torch.Size([1, 2])}, 1.0).dense("unit")
        tensor([[0.8485, 1.1314]])
    """
    divided: dict[int, Tensor | float] = {}  # `scale` may be a tensor

    def samples(rows: int) -> Tensor | float:
        if rows not in divided:
            divided[rows] = rows / scale
        return divided[rows]

    def scaled(credit: Tensor) -> Tensor:
        return rms_normalized(credit, samples(credit.shape[:-1].numel()))

    def dense(name: str) -> Tensor:
        product = credits.factors(name)
        if product is not None:
            return in_shape(scaled(product.product()), shapes[name])
        credit = credits.dense(name)
        if credit.dim() > 3:
            return scaled(credit.flatten(1)).reshape(credit.shape)
        return scaled(credit)

    def factors(name: str) -> Factors | None:
        product = credits.factors(name)
        if product is None:
            return None
        rows, matrix = product
        count = samples(rows.shape[:-1].numel())
        return Factors(rms_normalized(rows, count, credit=product.product()), matrix)

    return Credits(dense, factors)


def check_rows(unit: str, shape: Size, source: Size, what: str) -> None:
    """Check that a unit's output has as many rows as the source of its credit.

    Args:
        unit: name of the unit.
        shape: shape of its output.
        source: shape of the tensor from which the credit is computed.
        what: name of that tensor, for the error.

    Raises:
        ValueError: if there are more or fewer rows, as in an expert that runs for some samples.
    """
    if not shape or shape[0] != source[0]:
        raise ValueError(
            f"unit {unit!r} hands on {tuple(shape)}, but its credit is made of the {what}, "
            f"{tuple(source)}, row by row: expected {source[0]} rows. A submodule that runs for "
            "some of the samples, such as an expert, cannot be a unit, nor one whose rows are "
            "nodes, tokens or parts of samples. Name the submodule that contains all of them, put "
            "the batch first (`batch_first=True`), or train the net by FA."
        )


def in_shape(credit: Tensor, shape: Size) -> Tensor:
    """A credit (N, F) or (N, ..., d) in the shape of a unit's output."""
    if credit.shape == shape:
        return credit
    if credit.shape[1:].numel() == shape[1:].numel():
        return credit.reshape(shape)
    if channel_dim(shape) == 1:
        return credit[(...,) + (None,) * (len(shape) - 2)].expand(shape)
    return credit[:, None].expand(shape)


def rows_of(shape: Size) -> int:
    """How many rows a mean loss averages over: samples, or positions in (N, T, d).

    Example:
        >>> rows_of(torch.Size([8, 5, 32])), rows_of(torch.Size([8, 16, 4, 4]))
        (40, 8)
    """
    return shape[0] if len(shape) > 3 else shape[:-1].numel()


def channel_dim(shape: Size) -> int:
    """The dimension of features: last in (N, d) and (N, T, d), second in maps (N, d, H, W)."""
    return 1 if len(shape) > 3 else -1
