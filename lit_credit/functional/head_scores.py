"""What a head does with a block of random tokens that comes again."""

import torch
from torch import Generator, Tensor

from lit_credit.functional._attention import check_attention, in_float64

__all__ = [
    "duplicate_token_score",
    "induction_score",
    "previous_token_score",
    "repeated_tokens",
]


def repeated_tokens(
    n_samples: int, period: int, repeats: int, vocab_size: int, generator: Generator
) -> Tensor:
    """Sequences of one random block each, written several times.

    No token is twice in a block, so that there is one place to copy from.

    Args:
        n_samples: sequences N.
        period: tokens of a block, at most ``vocab_size``.
        repeats: how often the block is written.
        vocab_size: tokens are drawn from 0 .. ``vocab_size`` - 1.
        generator: a CPU generator.

    Returns:
        (N, ``period * repeats``) whole numbers, on the CPU.

    Raises:
        ValueError: if ``vocab_size`` is below ``period``, or a number is negative.

    Example:
        >>> repeated_tokens(1, 3, 2, vocab_size=9, generator=Generator().manual_seed(0))
        tensor([[2, 3, 4, 2, 3, 4]])
    """
    for name, value in (("n_samples", n_samples), ("period", period), ("repeats", repeats)):
        if value < 0:
            raise ValueError(f"`{name}` is {value}, expected at least 0.")
    if vocab_size < period:
        raise ValueError(
            f"`period` is {period}, but a block of different tokens has at most `vocab_size` of "
            f"them, {vocab_size}. Lower `period`."
        )
    keys = torch.rand(n_samples, vocab_size, generator=generator)
    return keys.argsort(1)[:, :period].repeat(1, repeats)


def previous_token_score(attention: Tensor) -> Tensor:
    r"""Mean attention to the token before.

    .. math:: \langle A_{t, t-1} \rangle_{t \geq 1}

    Args:
        attention: A, (N, H, T, T), rows are queries.

    Returns:
        (H,) float64, from 0 to 1.

    Raises:
        ValueError: if the shape is another, or T is 1.

    Example:
        >>> attention = torch.tensor([[[[1.0, 0.0, 0.0], [0.8, 0.2, 0.0], [0.0, 0.6, 0.4]]]])
        >>> previous_token_score(attention)
        tensor([0.7000], dtype=torch.float64)
    """
    return _mean_attention_back(attention, 1, first=1)


def induction_score(attention: Tensor, period: int) -> Tensor:
    r"""Mean attention to the token that followed the last time that the present one was seen.

    .. math:: \langle A_{t, t-P+1} \rangle_{t \geq P}

    Args:
        attention: A, (N, H, T, T), rows are queries, of sequences that repeat a random block.
        period: P, tokens of the block, at least 2 (with which it is the token before).

    Returns:
        (H,) float64, from 0 to 1.

    Raises:
        ValueError: if the shape is another, or ``period`` is below 2 or not below T.

    Example:
        >>> attention = torch.eye(6).roll(2, 0).expand(1, 1, 6, 6)  # two tokens back
        >>> induction_score(attention, period=3)
        tensor([1.], dtype=torch.float64)

    Reference:
        Olsson et al., In-context Learning and Induction Heads, 2022, arXiv 2209.11895, section
        "prefix matching".
    """
    return _mean_attention_back(attention, _checked(period) - 1, first=period)


def duplicate_token_score(attention: Tensor, period: int) -> Tensor:
    r"""Mean attention to the last place where the present token was seen.

    .. math:: \langle A_{t, t-P} \rangle_{t \geq P}

    Args:
        attention: A, (N, H, T, T), rows are queries, of sequences that repeat a random block.
        period: P, tokens of the block, at least 2.

    Returns:
        (H,) float64, from 0 to 1.

    Raises:
        ValueError: if the shape is another, or ``period`` is below 2 or not below T.

    Example:
        >>> attention = torch.eye(6).roll(3, 0).expand(1, 1, 6, 6)  # three tokens back
        >>> duplicate_token_score(attention, period=3)
        tensor([1.], dtype=torch.float64)

    Reference:
        Wang et al., Interpretability in the Wild, 2022, arXiv 2211.00593, section 3.1.
    """
    return _mean_attention_back(attention, _checked(period), first=period)


def _checked(period: int) -> int:
    if period < 2:
        raise ValueError(f"`period` is {period}, expected at least 2.")
    return period


def _mean_attention_back(attention: Tensor, distance: int, first: int) -> Tensor:
    """Mean over the samples and the queries from ``first`` on."""
    check_attention(attention, None)
    length = attention.shape[-1]
    if attention.ndim != 4 or attention.shape[-2] != length or length <= first:
        raise ValueError(
            f"`attention` has shape {tuple(attention.shape)}, expected (N, H, T, T) with T above "
            f"{first}."
        )
    # Of queries `distance`, `distance` + 1, ...
    back = attention.diagonal(-distance, dim1=-2, dim2=-1)[..., first - distance :]
    return in_float64(back).mean((0, -1))
