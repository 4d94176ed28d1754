"""Base ten in an attention pattern: how much of the column below is read."""

import torch
from torch import Tensor

from lit_credit.functional._rows import in_float32
from lit_credit.functional._shapes import check_index, check_shapes

__all__ = ["best_ratio", "force_ratio", "place_value_ratio", "without_source"]

# Legend: C columns, each read by one row of the attention (R, T); S sources in a column.


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

    What a row spends on the two columns together, and all other attention, stay as they are.

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
    """The ratio at which most sums are right; of several the mean, NaN where none is ever right.

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
