"""Sums drawn as tensors: uniform, or with carries where they are wanted."""

import torch
from torch import Generator, Tensor

__all__ = ["draw_sums", "forced_chains"]

# What a column does. The digits are x = floor(u (first)) + (second) and, v another uniform number,
# y = floor(v (third + fourth x)) + (fifth + sixth x).
_COLUMNS = torch.tensor(
    [
        [10, 0, 10, 0, 0, 0],  # free: both uniform
        [9, 0, 9, -1, 0, 0],  # none: x + y < 9, so that no carry leaves
        [9, 1, 0, 1, 10, -1],  # makes: x + y > 9
        [10, 0, 1, 0, 9, -1],  # passes: x + y = 9
        [1, 0, 1, 0, 0, 0],  # zero: both 0
        [1, 9, 1, 0, 0, 0],  # nine: x = 9, y = 0, which passes too
        [10, 0, 1, 0, 0, 0],  # alone: y = 0
    ]
)
_FREE, _NONE, _MAKES, _PASSES, _ZERO, _NINE, _ALONE = range(7)

# Of the patterns single, chain, place and boundary: what the run is made of, and all else.
_RUN = torch.tensor([_PASSES, _PASSES, _NINE, _PASSES])
_REST = torch.tensor([_NONE, _FREE, _ALONE, _ZERO])

# Legend: N sums of D columns, the lowest first.


def draw_sums(
    count: int, digits: int, used: int, carry_mix: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """X and Y of ``used`` digits: uniform, or with columns that make and pass on carries.

    Those have one of four patterns, drawn at random: ``single``, one column makes a carry and no
    other does, nor passes one on; ``chain``, a column makes a carry that some columns pass on, the
    others are uniform; ``place``, the same where Y has but the one digit that makes the carry;
    ``boundary``, a carry goes from the lowest column to a power of ten, and nothing is above it.

    Args:
        count: sums N.
        digits: columns D.
        used: columns that are not 0.
        carry_mix: the probability of a pattern.
        generator: draws them.

    Returns:
        Digits, int64 (2, N, D), and which sums have a pattern, bool (N,).
    """
    column = torch.arange(used)
    choice, pattern, start, length = torch.rand(4, count, 1, generator=generator)
    forced, pattern = choice < carry_mix, (4 * pattern).long()
    first = (used * start).long() * (pattern < 3)
    last = first + ((used - first) * length).long() * (pattern > 0)
    kind = torch.where((column > first) & (column <= last), _RUN[pattern], _REST[pattern])
    kind = torch.where(column == first, _MAKES, kind)
    return _columns(torch.where(forced, kind, _FREE), digits, generator), forced[:, 0]


def forced_chains(count: int, digits: int, length: int, generator: Generator) -> Tensor:
    """X and Y whose carries make one run of ``length`` columns, at a random place.

    The run is one column that makes a carry and ``length - 1`` that pass it on; no other carries.

    Returns:
        int64 (2, N, D).
    """
    column = torch.arange(digits)
    first = torch.randint(digits - length + 1, (count, 1), generator=generator)
    # Above the run a sum of nine would pass the carry on, so all others stay below.
    kind = torch.where((column > first) & (column < first + length), _PASSES, _NONE)
    return _columns(torch.where(column == first, _MAKES, kind), digits, generator)


def _columns(kind: Tensor, digits: int, generator: Generator) -> Tensor:
    """Digits of columns that do what ``kind`` says, with zeros above."""
    u, v = torch.rand(2, *kind.shape, generator=generator)
    span, least, c, d, e, f = _COLUMNS.T.contiguous()[:, kind]
    pair = torch.zeros(2, len(kind), digits, dtype=torch.long)
    x = (u * span).long() + least
    used = pair[..., : kind.shape[1]]
    used[0], used[1] = x, (v * (c + d * x)).long() + e + f * x
    return pair
