"""Errors of sums, what attention reads of a digit, and base ten in an attention pattern."""

from typing import NamedTuple

import torch
from torch import Tensor

from lit_credit.functional._rows import in_float32, magnitude
from lit_credit.functional._shapes import check_index, check_shapes

__all__ = [
    "DigitReadout",
    "best_ratio",
    "column_errors",
    "digit_differences",
    "digit_readout",
    "exact_by_run",
    "force_ratio",
    "place_value_ratio",
    "without_source",
]

# Errors of N sums of C columns.


def column_errors(wrong: Tensor, carries: Tensor) -> Tensor:
    """The share of wrong digits in each column: of all, without, and with a carry into it.

    Args:
        wrong: bool (N, C).
        carries: which columns receive a carry, bool (N, C).

    Returns:
        float32 (C, 3); NaN where a column never, or always, receives one.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> wrong = torch.tensor([[True], [False], [False]])
        >>> column_errors(wrong, torch.tensor([[True], [False], [True]]))
        tensor([[0.3333, 0.0000, 0.5000]])
    """
    check_shapes("(N, C), (N, C)", wrong=wrong, carries=carries)
    chosen = torch.stack([torch.ones_like(carries), ~carries, carries], 2)
    return (wrong[..., None] & chosen).sum(0) / chosen.sum(0)


def exact_by_run(right: Tensor, runs: Tensor, longest: int) -> Tensor:
    """The share of right sums among those whose longest run of carries is 0, 1, .. ``longest``.

    Args:
        right: which sums are right as a whole, bool (N,).
        runs: the longest run of each, int64 (N,).
        longest: the last length; longer ones are left out.

    Returns:
        float32 (longest + 1,); NaN for a length that no sum has.

    Raises:
        ValueError: if the shapes differ, or ``longest`` is below 0.

    Example:
        >>> exact_by_run(torch.tensor([True, False, True]), torch.tensor([0, 2, 2]), longest=2)
        tensor([1.0000,    nan, 0.5000])
    """
    check_shapes("(N), (N)", right=right, runs=runs)
    if longest < 0:
        raise ValueError(f"`longest` is {longest}, expected at least 0.")
    of_length = runs[:, None] == torch.arange(longest + 1, device=runs.device)  # (N, L)
    return (right[:, None] & of_length).sum(0) / of_length.sum(0)


def digit_differences(predicted: Tensor, target: Tensor, carries: Tensor) -> Tensor:
    """How often a digit is off by 0, 1, .. 9, modulo 10, without and with a carry into its column.

    A carry that was missed is off by 9, one that was made up by 1; an error is one of carries if
    it is either.

    Args:
        predicted: digits, int64 of any shape.
        target: the right ones.
        carries: bool.

    Returns:
        int64 (2, 10).

    Raises:
        ValueError: if the shapes do not broadcast.

    Example:
        >>> predicted, target = torch.tensor([3, 0, 7]), torch.tensor([4, 9, 7])
        >>> digit_differences(predicted, target, torch.tensor([True, False, False])).tolist()
        [[1, 1, 0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]]
    """
    check_shapes("(...), (...), (...)", predicted=predicted, target=target, carries=carries)
    off = (predicted - target) % 10 + 10 * carries
    return torch.bincount(off.flatten(), minlength=20).view(2, 10)


# What attention reads of a digit.


class DigitReadout(NamedTuple):
    """How a map to the stream reads the digits, and what it writes."""

    values: Tensor
    """Of each digit, (10,), rising with it; in units of the singular value."""
    linearity: Tensor
    """R^2 of the best straight line through them; NaN if all are equal."""
    share: Tensor
    """Of the map's squared norm, in the one direction that is read; 1 for a map of rank one."""
    read: Tensor
    """The direction that is read, (2,), of norm 1."""
    write: Tensor
    """The direction that is written, (5,), of norm 1."""


def digit_readout(points: Tensor, matrix: Tensor) -> DigitReadout:
    r"""The leading direction that a map M reads, and each digit's place along it.

    .. math:: M \approx \sigma u v^\top, \quad f(d) = \sigma \, e_d^\top v

    For M = b a^T H it is :math:`|b| \, e_d^\top H^\top a`. An f that is a straight line lets
    attention, which takes means, add digits.

    Args:
        points: e, one row a digit, (D, 2).
        matrix: M, (d, 2).

    Returns:
        See :class:`DigitReadout`; NaN where M is 0 or not finite, and but
        for ``share`` where a point is not.

    Raises:
        ValueError: if the shapes differ from these, or a tensor has no rows.

    Example:
        >>> points = torch.stack([torch.arange(10.0), torch.ones(10)], 1)
        >>> found = digit_readout(points, torch.tensor([[2.0, 0.0], [0.0, 0.0]]))
        >>> found.values[:3], found.linearity
        (tensor([0., 2., 4.]), tensor(1.))
    """
    check_shapes("(D, 2), (d, 2)", points=points, matrix=matrix)
    if not (len(points) and len(matrix)):
        raise ValueError(
            f"`points` has {len(points)} rows and `matrix` {len(matrix)}, expected at least one."
        )
    m = matrix.detach().double()
    scale = magnitude(m, (0, 1))
    m = m / scale
    if not (m.isfinite().all() and m.any()):
        m = torch.full_like(m, torch.nan)
        u, s, vh = torch.full_like(m[:, :2], torch.nan), m[0], m[:2]
    else:
        u, s, vh = torch.linalg.svd(m, full_matrices=False)
    e = points.detach().double()
    values = s[0] * scale[0, 0] * e @ vh[0]
    digits = torch.arange(len(e), device=e.device).double()
    # From the first digit's, so that equal values leave nothing of rounding.
    above = (e - e[0]) / magnitude(e, (0, 1)) @ vh[0]
    digits, centred = digits - digits.mean(), above - above.mean()
    slope = digits @ centred
    sign = torch.where(slope < 0, -1.0, 1.0).masked_fill(slope.isnan(), torch.nan)
    linearity = slope.square() / (digits.square().sum() * centred.square().sum())
    share = s[0].square() / s.square().sum()
    found = (sign * values, linearity, share, sign * vh[0], sign * u[:, 0])
    dtype = torch.promote_types(matrix.dtype, torch.float32)
    return DigitReadout(*(x.to(dtype) for x in found))


# The place value in an attention (R, T): each of C columns is read by one row, and has S sources.


def place_value_ratio(attention: Tensor, rows: Tensor, own: Tensor, leak: Tensor) -> Tensor:
    r"""Attention to the column below, over that to the column itself, each a mean over sources.

    .. math:: \rho_i = \operatorname{mean}_{t \in \text{leak}_i} A_{r_i t}
        \,/\, \operatorname{mean}_{t \in \text{own}_i} A_{r_i t}

    The digits and the carries of a sum have x + y + c_in - z = 10 c_out. Read at a tenth, the
    column below therefore says c_out - c_in / 10: a row needs no more to know its carry.

    Args:
        attention: A, (R, T).
        rows: r, int64 (C,).
        own: the sources of the column itself, int64 (C, S).
        leak: those of the column below, int64 (C, S').

    Returns:
        (C,); NaN where a column is not read at all.

    Raises:
        ValueError: if the shapes do not fit, or a row or source is not in the attention.

    Example:
        >>> attention = torch.tensor([[0.4, 0.4, 0.04, 0.04, 0.12]])
        >>> row, own, leak = torch.tensor([0]), torch.tensor([[0, 1]]), torch.tensor([[2, 3]])
        >>> place_value_ratio(attention, row, own, leak)
        tensor([0.1000])
    """
    attention = _checked(attention, rows, own=own, leak=leak)
    low, high = (_at(attention, rows, slots).mean(1) for slots in (leak, own))
    return torch.where(high > 0, low / high, torch.nan)


def force_ratio(attention: Tensor, rows: Tensor, own: Tensor, leak: Tensor, ratio: float) -> Tensor:
    """The attention with that ratio in every column, all sources of a kind read alike.

    The attention of a row to the two columns together stays as it is, and so does all the rest.

    Args:
        attention: (R, T).
        rows: int64 (C,).
        own: int64 (C, S).
        leak: int64 (C, S').
        ratio: at least 0.

    Returns:
        (R, T).

    Raises:
        ValueError: if ``ratio`` is below 0, the shapes do not fit, or a row or source is not in the
            attention.

    Example:
        >>> attention = torch.tensor([[0.3, 0.5, 0.1, 0.1]])
        >>> row, own, leak = torch.tensor([0]), torch.tensor([[0, 1]]), torch.tensor([[2, 3]])
        >>> force_ratio(attention, row, own, leak, 0.25)
        tensor([[0.4000, 0.4000, 0.1000, 0.1000]])
    """
    if ratio < 0:
        raise ValueError(f"`ratio` is {ratio}, expected at least 0.")
    attention = _checked(attention, rows, own=own, leak=leak)
    both = _at(attention, rows, own).sum(1) + _at(attention, rows, leak).sum(1)
    high = both / (own.shape[1] + ratio * leak.shape[1])
    forced = attention.clone()
    forced[rows[:, None], own] = high[:, None]
    forced[rows[:, None], leak] = ratio * high[:, None]
    return forced


def without_source(attention: Tensor, rows: Tensor, source: Tensor) -> Tensor:
    """The attention with one source of every column taken out, and its share given to the others.

    Args:
        attention: (R, T), rows that sum to 1.
        rows: int64 (C,).
        source: int64 (C,).

    Returns:
        (R, T), rows that sum to 1; NaN in a row that read nothing else.

    Raises:
        ValueError: if the shapes do not fit, or a row or source is not in the attention.

    Example:
        >>> without_source(torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([0]), torch.tensor([0]))
        tensor([[0.0000, 0.6000, 0.4000]])
    """
    left = _checked(attention, rows, source=source).clone()
    left[rows, source] = 0
    left[rows] = left[rows] / left[rows].sum(1, keepdim=True)
    return left


def best_ratio(ratios: Tensor, exact: Tensor) -> Tensor:
    """The ratio at which most sums are right; the mean of several such, NaN if none is ever right.

    Args:
        ratios: (K,).
        exact: shares of right sums, (K,).

    Returns:
        ().

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> best_ratio(torch.tensor([0.0, 0.09, 0.11]), torch.tensor([0.2, 1.0, 1.0]))
        tensor(0.1000)
    """
    check_shapes("(K), (K)", ratios=ratios, exact=exact)
    (ratios,) = in_float32(ratios)
    if not len(exact) or not exact.max() > 0:
        return ratios.new_tensor(torch.nan)
    return ratios[exact == exact.max()].mean()


def _checked(attention: Tensor, rows: Tensor, **slots: Tensor) -> Tensor:
    """The attention in float32 at least, if rows and slots are places in it."""
    single = "(C)" if "source" in slots else "(C, S), (C, S')"
    check_shapes(f"(R, T), (C), {single}", attention=attention, rows=rows, **slots)
    check_index("rows", rows, attention.shape[0])
    for name, places in slots.items():
        check_index(name, places, attention.shape[1])
    return in_float32(attention)[0]


def _at(attention: Tensor, rows: Tensor, slots: Tensor) -> Tensor:
    return attention[rows[:, None], slots]
