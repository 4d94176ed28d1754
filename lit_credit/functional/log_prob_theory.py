"""Which logits of low rank come closest to known distributions, to second order."""

import torch
from torch import Tensor

from lit_credit.functional._attention import in_float64
from lit_credit.functional._linalg import svd
from lit_credit.functional._shapes import check_shapes
from lit_credit.functional.leading_directions import leading_directions

__all__ = [
    "centred_log_probs",
    "log_prob_directions",
    "log_ratio_fluctuation",
    "low_rank_log_probs",
    "second_order_contexts",
]

# Legend: M contexts, N symbols, d features; p_m the distribution after context m, u_i the
# unembedding vectors, the rows of W_U; L = log p less its mean over symbols.


def centred_log_probs(probs: Tensor) -> Tensor:
    r"""Logarithms of probabilities without what a softmax ignores.

    .. math:: L_{mi} = \log p_{mi} - \tfrac1N \sum_j \log p_{mj}

    Args:
        probs: p, (..., N).

    Returns:
        (..., N) float64; not finite in a row in which a probability is zero.

    Example:
        >>> centred_log_probs(torch.tensor([[0.8, 0.2]])).round(decimals=3)
        tensor([[ 0.6930, -0.6930]], dtype=torch.float64)
    """
    logs = in_float64(probs).log()
    return logs - logs.mean(-1, keepdim=True)


def log_prob_directions(probs: Tensor, rank: int) -> Tensor:
    r"""The directions among symbols in which the distributions differ most from the uniform one.

    They are the leading right singular vectors of L, all orthogonal to the all-ones direction. An
    unembedding of as many features does best, to lowest order, if it spans them.

    Args:
        probs: p, (M, N).
        rank: how many, at most min(M, N).

    Returns:
        (N, rank) float64, orthonormal columns; NaN if a probability is zero.

    Raises:
        ValueError: if there are not so many.

    Example:
        >>> log_prob_directions(torch.tensor([[0.8, 0.1, 0.1]]), 1).abs().round(decimals=3)
        tensor([[0.8160],
                [0.4080],
                [0.4080]], dtype=torch.float64)
    """
    check_shapes("(M, N)", probs=probs)
    return leading_directions(centred_log_probs(probs).mT, rank)


def low_rank_log_probs(probs: Tensor, rank: int) -> Tensor:
    """The logits of a rank that are closest to the centred log-probabilities, symbol by symbol.

    Args:
        probs: p, (M, N).
        rank: at most min(M, N).

    Returns:
        (M, N) float64: the truncated singular value decomposition of L; NaN if a probability is
        zero.

    Raises:
        ValueError: if there are not so many singular values.

    Example:
        >>> probs = torch.tensor([[0.8, 0.2], [0.3, 0.7]])
        >>> bool((low_rank_log_probs(probs, 1).softmax(-1) - probs).abs().max() < 1e-6)
        True
    """
    check_shapes("(M, N)", probs=probs)
    if not 1 <= rank <= min(probs.shape[-2:]):
        raise ValueError(
            f"`rank` is {rank}, expected from 1 to {min(probs.shape[-2:])}, as many singular values"
            f" as `probs` of shape {tuple(probs.shape)} can have."
        )
    u, s, v = svd(centred_log_probs(probs))
    return (u[..., :rank] * s[..., None, :rank]) @ v[..., :rank].mT


def log_ratio_fluctuation(logits: Tensor, probs: Tensor) -> Tensor:
    r"""How logits differ from the true log-probabilities, less the mean difference.

    .. math:: Z = f - \log p - \mathbb{E}_p[f - \log p], \qquad
        \log \mathbb{E}_p e^Z = \mathrm{KL}(p \,\|\, \mathrm{softmax} f)
        \approx \tfrac12 \mathrm{Var}_p(f - \log p)

    The equality is exact where no probability is zero.

    Args:
        logits: f, (..., N).
        probs: p, (..., N).

    Returns:
        Z, (..., N) float64; NaN for a symbol of probability zero, which is left out of the mean.

    Raises:
        ValueError: if the shapes do not broadcast.

    Example:
        >>> p = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
        >>> z = log_ratio_fluctuation(torch.zeros(3), p)
        >>> round((p * z.exp()).sum().log().item(), 4), round((p * z**2).sum().item() / 2, 4)
        (0.0589, 0.0601)
    """
    check_shapes("(..., N), (..., N)", logits=logits, probs=probs)
    p = in_float64(probs)
    difference = torch.where(p == 0, torch.nan, in_float64(logits) - p.log())
    mean = torch.where(p == 0, 0.0, p * difference).sum(-1, keepdim=True)
    return difference - mean


def second_order_contexts(unembedding: Tensor, probs: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""The context vectors that are best for an unembedding, to second order in the error.

    .. math:: w_m = \mathrm{Var}_{p_m}(u)^{-1} \, \mathrm{Cov}_{p_m}(u, \log p_m - b)

    which minimises :math:`\mathrm{Var}_{p_m}(u \cdot w + b - \log p_m)`, twice the divergence to
    second order. Of several such vectors it is the shortest.

    Args:
        unembedding: W_U, (N, d).
        probs: p, (M, N); a symbol of probability zero plays no part.
        bias: b, (N,), of the unembedding; None for zero.

    Returns:
        (M, d) float64; NaN where a probability is negative or not finite, and all of it if
        ``unembedding`` or ``bias`` is not finite.

    Raises:
        ValueError: if the numbers of symbols differ, or there is none.

    Example:
        >>> w = second_order_contexts(torch.eye(2), torch.tensor([[0.8, 0.2]]))
        >>> (w @ torch.eye(2, dtype=torch.float64)).softmax(-1).round(decimals=3)
        tensor([[0.8000, 0.2000]], dtype=torch.float64)
    """
    u, p = in_float64(unembedding), in_float64(probs)
    if u.ndim != 2 or p.ndim != 2 or len(u) != p.shape[1] or not len(u):
        raise ValueError(
            f"`unembedding` and `probs` have shapes {tuple(u.shape)} and {tuple(p.shape)}, expected"
            " (N, d) and (M, N) of at least one symbol."
        )
    if bias is not None and bias.shape != u.shape[:1]:
        raise ValueError(f"`bias` has shape {tuple(bias.shape)}, expected ({len(u)},).")
    p = p.to(u.device)
    b = u.new_zeros(len(u)) if bias is None else in_float64(bias).to(u.device)
    if not (u.isfinite().all() and b.isfinite().all()):  # LAPACK would raise
        return u.new_full((len(p), u.shape[1]), torch.nan)
    sound = ((p >= 0) & p.isfinite()).all(1, keepdim=True)
    p = torch.where(sound, p, 0.0)
    root = p.sqrt()[..., None]  # (M, N, 1)
    means = p @ u
    logs = torch.where(p > 0, p.log() - b, 0.0)
    logs = logs - (p * logs).sum(-1, keepdim=True)
    # Least squares of sqrt(p) (u - E u) w = sqrt(p) (log p - E log p): the variance itself would
    # square the condition number, and p is often concentrated.
    inverse: Tensor = torch.linalg.pinv(root * (u - means[:, None]))
    return torch.where(sound, (inverse @ (root * logs[..., None])).squeeze(-1), torch.nan)
