"""Sums drawn as tensors: uniform, or with carries where they are wanted."""

import torch
from torch import Generator, Tensor

__all__ = ["carry_mix", "forced_chains", "uniform"]

# What a column of a sum does.
_FREE, _NONE, _MAKES, _PASSES, _ZERO = range(5)

# Legend: N sums of D columns, the lowest first; m is the number of columns in use.


def uniform(count: int, digits: int, used: int, generator: Generator) -> Tensor:
    """X and Y, each uniform in [0, 10^used): int64 (2, N, D)."""
    pair = torch.randint(10, (2, count, digits), generator=generator)
    pair[..., used:] = 0
    return pair


def carry_mix(count: int, digits: int, used: int, generator: Generator) -> Tensor:
    """X and Y of ``used`` digits whose columns make and pass on carries.

    Of each sum one of four patterns, drawn at random: ``single``, one column makes a carry and no
    other does, nor passes one on; ``chain``, a column makes a carry that some columns pass on, the
    others are uniform; ``place``, the same where Y has but the one digit that makes the carry;
    ``boundary``, a carry goes from the lowest column to a power of ten, and nothing is above it.

    Returns:
        int64 (2, N, D).
    """
    column = torch.arange(digits)
    draws = torch.rand(3, count, 1, generator=generator)
    pattern = (4 * draws[0]).long()
    start = torch.where(pattern == 3, 0, (used * draws[1]).long())
    # Columns that pass the carry on, after the one that makes it.
    length = ((used - start) * draws[2]).long() * (pattern > 0)
    rest = torch.where(pattern == 0, _NONE, torch.where(pattern == 3, _ZERO, _FREE))
    kind = rest.expand(-1, digits).clone()
    kind = torch.where((column > start) & (column <= start + length), _PASSES, kind)
    kind = torch.where(column == start, _MAKES, kind)
    x, y = _columns(kind, generator)
    alone = pattern == 2
    # A Y of one digit: what it would pass on is a nine of X.
    x = torch.where(alone & (kind == _PASSES), 9, x)
    y = torch.where(alone & (kind != _MAKES), 0, y)
    pair = torch.stack([x, y])
    pair[..., used:] = 0
    return pair


def forced_chains(count: int, digits: int, length: int, generator: Generator) -> Tensor:
    """X and Y whose carries make one run of ``length`` columns, at a random place.

    The run is one column that makes a carry and ``length - 1`` that pass it on; no other carries.

    Returns:
        int64 (2, N, D).
    """
    column = torch.arange(digits)
    start = torch.randint(digits - length + 1, (count, 1), generator=generator)
    passes = (column > start) & (column < start + length)
    kind = torch.where(passes, _PASSES, _NONE)
    # Above the run a sum of nine would pass the carry on, so all others stay below.
    return torch.stack(_columns(torch.where(column == start, _MAKES, kind), generator))


def _columns(kind: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Digits x and y (N, D) of columns that do what ``kind`` says."""
    u, v = torch.rand(2, *kind.shape, generator=generator)
    makes, none = kind == _MAKES, kind == _NONE
    # x + y >= 10 needs x >= 1; x + y <= 8 needs x <= 8.
    x = (u * torch.where(makes | none, 9, 10)).long() + makes
    low = torch.where(makes, 10 - x, 0)
    span = torch.where(makes, x, torch.where(none, 9 - x, 10))
    y = torch.where(kind == _PASSES, 9 - x, low + (v * span).long())
    blank = kind == _ZERO
    return x.masked_fill(blank, 0), y.masked_fill(blank, 0)
