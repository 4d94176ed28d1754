"""Attention as rows of probabilities in float64, with what is masked taken out."""

import torch
from torch import Tensor

# Rows of a softmax sum to 1 up to the rounding of their precision, and no better than float32's,
# since attention cast to float64 was most often computed in float32.
_FLOAT32 = torch.finfo(torch.float32).eps


def in_float64(x: Tensor) -> Tensor:
    """The values in float64, or in complex128, outside of any graph.

    From Apple's ``mps``, which has neither, on CPU.
    """
    x = x.detach()
    wide = torch.complex128 if x.is_complex() else torch.float64
    return (x.cpu() if x.device.type == "mps" else x).to(wide)


def check_attention(attention: Tensor, allowed: Tensor | None) -> None:
    """Raise a ValueError unless these are attention (..., T, S) and a mask that fits it."""
    if attention.ndim < 2 or not attention.shape[-1] or not attention.is_floating_point():
        raise ValueError(
            f"`attention` has shape {tuple(attention.shape)} and dtype {attention.dtype}, expected "
            "floating-point probabilities (..., T, S) of T queries over S keys, at least one."
        )
    if allowed is None:
        return
    if allowed.dtype != torch.bool:
        raise ValueError(
            f"`allowed` has dtype {allowed.dtype}, expected bool, True where a query may see a "
            "key. Of a mask that is added to the scores take `mask == 0`."
        )
    try:
        allowed.expand(attention.shape)
    except RuntimeError:
        raise ValueError(
            f"`allowed` has shape {tuple(allowed.shape)}, which does not broadcast to that of "
            f"`attention`, {tuple(attention.shape)}. Reshape it to (..., T, S)."
        ) from None


def attention_rows(attention: Tensor, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows of probabilities, and their support.

    Args:
        attention: A, (..., T, S).
        allowed: bool, broadcastable to A, True where a query may see a key; None allows all.

    Returns:
        A in float64, zero outside of the support and NaN throughout a row that is no softmax (it
        does not sum to 1, or has a negative entry); and the support, bool, (..., T, S), which is
        empty in a row without an allowed key, or whose every entry is zero.

    Raises:
        ValueError: if ``attention`` is not (..., T, S) or ``allowed`` does not fit it.
    """
    check_attention(attention, allowed)
    a = in_float64(attention)
    support = torch.ones_like(a, dtype=torch.bool)
    if allowed is not None:
        support = allowed.detach().to(a.device).expand_as(a)
        a = a.masked_fill(~support, 0.0)
    support = support & (a != 0).any(-1, keepdim=True)
    seen = support.any(-1, keepdim=True)
    tolerance = max(torch.finfo(attention.dtype).eps, _FLOAT32) ** 0.5
    sums = ((a.sum(-1, keepdim=True) - 1).abs() <= tolerance) & (a >= 0).all(-1, keepdim=True)
    return a.masked_fill(seen & ~sums, torch.nan), support
