"""What logits make of known distributions: divergence, accuracy, margins."""

import torch
from torch import Tensor

from lit_credit.functional._attention import in_float64
from lit_credit.functional._shapes import check_index

__all__ = ["logit_margins", "softmax_divergence", "top_probability"]

# Legend: N symbols, logits f, true distribution p.


def softmax_divergence(logits: Tensor, probs: Tensor) -> Tensor:
    r"""Kullback-Leibler divergence of the softmax of logits from the true distribution.

    .. math:: \mathrm{KL}(p \,\|\, \mathrm{softmax} f) = \sum_i p_i (\log p_i - \log q_i)

    Args:
        logits: f, (..., N).
        probs: p, (..., N); a symbol of probability zero adds nothing.

    Returns:
        (...) float64, nats.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> round(softmax_divergence(torch.zeros(2), torch.tensor([1.0, 0.0])).item(), 4)
        0.6931
    """
    p, f = _pair(logits, probs)
    cross = torch.where(p == 0, 0.0, p * f.log_softmax(-1))
    return (torch.xlogy(p, p) - cross).sum(-1)


def top_probability(logits: Tensor, probs: Tensor) -> Tensor:
    r"""True probability of the symbol with the largest logit: the expected top-1 accuracy.

    .. math:: p_{\arg\max_i f_i}

    Args:
        logits: f, (..., N); of equal largest ones the first counts.
        probs: p, (..., N).

    Returns:
        (...) float64; NaN where a logit is NaN.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> top_probability(torch.tensor([0.0, 2.0]), torch.tensor([0.75, 0.25])).item()
        0.25
    """
    p, f = _pair(logits, probs)
    top = p.gather(-1, f.argmax(-1, keepdim=True)).squeeze(-1)
    return top.masked_fill(f.isnan().any(-1), torch.nan)


def logit_margins(logits: Tensor, target: Tensor) -> Tensor:
    r"""Logit of the correct symbol minus the best of the wrong ones.

    .. math:: f_y - \max_{i \neq y} f_i

    Above 0 where the correct symbol comes out on top.

    Args:
        logits: f, (..., N), or what one part of a net adds to them.
        target: y, whole numbers that broadcast to (...), such as (M,) beside (heads, M, N).

    Returns:
        (...) float64; NaN where a logit is NaN.

    Raises:
        ValueError: if there are fewer than two symbols, or ``target`` does not fit.

    Example:
        >>> logit_margins(torch.tensor([[1.0, 3.0, 2.5]]), torch.tensor([1])).tolist()
        [0.5]
    """
    # Halves and floats as they are: a maximum rounds nothing, and copies in float64 are large.
    f = logits.detach() if logits.is_floating_point() else in_float64(logits)
    if f.ndim < 1 or f.shape[-1] < 2 or target.is_floating_point():
        raise ValueError(
            f"`logits` has shape {tuple(logits.shape)} and `target` the dtype {target.dtype}, "
            "expected (..., N) with at least two symbols, and whole numbers."
        )
    try:
        y = target.to(f.device).long().expand(f.shape[:-1])[..., None]
    except RuntimeError:
        raise ValueError(
            f"`target` has shape {tuple(target.shape)}, which does not broadcast to "
            f"{tuple(f.shape[:-1])}, that of `logits` without symbols."
        ) from None
    check_index("target", target, f.shape[-1])
    correct = f.gather(-1, y).squeeze(-1)
    wrong = f.scatter(-1, y, -torch.inf).amax(-1)
    return in_float64(correct) - in_float64(wrong)


def _pair(logits: Tensor, probs: Tensor) -> tuple[Tensor, Tensor]:
    if logits.shape != probs.shape or not logits.shape[-1:].numel() or logits.ndim == 0:
        raise ValueError(
            f"`logits` and `probs` have shapes {tuple(logits.shape)} and {tuple(probs.shape)}, "
            "expected one shape (..., N) of at least one symbol."
        )
    f = in_float64(logits)
    return in_float64(probs).to(f.device), f
