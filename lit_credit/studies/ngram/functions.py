"""The study's functions: limits of any net, and the best logits of low rank."""

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lit_credit.functional._attention import in_float64
from lit_credit.functional._linalg import svd
from lit_credit.functional._rows import in_float32
from lit_credit.functional._shapes import check_shapes
from lit_credit.functional.log_probs import centred_log_probs

__all__ = [
    "conditional_entropy",
    "log_ratio_fluctuation",
    "low_rank_log_probs",
    "max_accuracy",
    "min_norm_coordinates",
    "optimal_contexts",
    "random_baseline",
    "second_order_contexts",
]


def conditional_entropy(prior: Tensor, rows: Tensor) -> Tensor:
    r"""Entropy of the next symbol, averaged over contexts: the least possible cross-entropy.

    .. math:: H = -\sum_c p(c) \sum_x \pi(x | c) \log \pi(x | c)

    Args:
        prior: p, (T,), sums to one.
        rows: pi, (T, V), each row sums to one.

    Returns:
        A scalar in nats.

    Raises:
        ValueError: if the shapes do not belong together.

    Example:
        >>> conditional_entropy(torch.tensor([0.5, 0.5]), torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
        tensor(0.3466)
    """
    prior, rows = _checked(prior, rows)
    entropies: Tensor = torch.special.entr(rows).sum(-1)
    return prior @ entropies


def random_baseline(prior: Tensor, rows: Tensor) -> Tensor:
    """The divergence of a net that answers uniformly, ``log V - H``.

    Args:
        prior: (T,), sums to one.
        rows: (T, V), each row sums to one.

    Returns:
        A scalar in nats.

    Raises:
        ValueError: if the shapes do not belong together.

    Example:
        >>> random_baseline(torch.tensor([0.5, 0.5]), torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
        tensor(0.3466)
    """
    entropy = conditional_entropy(prior, rows)
    return math.log(rows.shape[-1]) - entropy


def max_accuracy(prior: Tensor, rows: Tensor) -> Tensor:
    """The largest possible accuracy: the mean of the rows' largest entries.

    Args:
        prior: (T,), sums to one.
        rows: (T, V), each row sums to one.

    Returns:
        A scalar, 1 / V to 1.

    Raises:
        ValueError: if the shapes do not belong together.

    Example:
        >>> max_accuracy(torch.tensor([0.5, 0.5]), torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
        tensor(0.7500)
    """
    prior, rows = _checked(prior, rows)
    return prior @ rows.amax(-1)


def _checked(prior: Tensor, rows: Tensor) -> list[Tensor]:
    if rows.ndim != 2 or prior.shape != rows.shape[:1] or not rows.numel():
        raise ValueError(
            f"`prior` has shape {tuple(prior.shape)} and `rows` {tuple(rows.shape)}; expected "
            "(contexts,) and (contexts, symbols), at least one of each."
        )
    return in_float32(prior, rows)


def min_norm_coordinates(stream: Tensor, unembedding: Tensor) -> Tensor:
    r"""The shortest coordinates of a vector in the unembedding vectors of all symbols.

    .. math:: \alpha = W_U (W_U^\top W_U)^{-1} h, \qquad W_U h = (W_U W_U^\top) \, \alpha

    so that ``unembedding @ unembedding.mT * alpha`` shows, row by row, what each symbol's direction
    adds to a logit.

    Args:
        stream: h, (..., d), such as what a head adds.
        unembedding: W_U, (N, d).

    Returns:
        (..., N): coordinates with :math:`W_U^\top \alpha = h`, or as near to it as can be if W_U
        does not span all of d; NaN if it is not finite.

    Raises:
        ValueError: if the numbers of features differ.

    Example:
        >>> w = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> alpha = min_norm_coordinates(torch.tensor([3.0, 0.0]), w)
        >>> alpha.round(decimals=4)
        tensor([ 2., -1.,  1.])
    """
    if unembedding.ndim != 2 or stream.shape[-1:] != unembedding.shape[1:]:
        raise ValueError(
            f"`stream` and `unembedding` have shapes {tuple(stream.shape)} and "
            f"{tuple(unembedding.shape)}, expected (..., d) and (N, d)."
        )
    h, u = in_float32(stream, unembedding)
    if not u.isfinite().all():  # LAPACK would raise
        return h.new_full((*h.shape[:-1], len(u)), torch.nan)
    inverse: Tensor = torch.linalg.pinv(u)  # (d, N)
    return h @ inverse


# Logits of low rank against known distributions. M contexts, N symbols, d features; p_m is the
# distribution after context m, u_i are the unembedding vectors, the rows of W_U; L = log p less its
# mean over symbols.

_STEPS, _HALVINGS = 100, 40


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


def optimal_contexts(unembedding: Tensor, probs: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""The context vectors for which an unembedding comes closest to known distributions.

    .. math:: w_m = \arg\min_w \mathrm{KL}(p_m \,\|\, \mathrm{softmax}(W_U w + b))

    A convex problem for each context, solved by Newton steps with halving, from zero or
    from :func:`second_order_contexts`, whichever is nearer.

    Args:
        unembedding: W_U, (N, d).
        probs: p, (M, N).
        bias: b, (N,), of the unembedding; None for zero.

    Returns:
        (M, d) float64; NaN where a probability is zero, as the best may then be at infinity, or no
        probability, and all of it if ``unembedding`` or ``bias`` is not finite.

    Raises:
        ValueError: if the numbers of symbols differ.

    Example:
        >>> w = optimal_contexts(torch.eye(3)[:, :2], torch.tensor([[0.7, 0.2, 0.1]]))
        >>> (w @ torch.eye(2, 3, dtype=torch.float64)).softmax(-1).round(decimals=3)
        tensor([[0.7000, 0.2000, 0.1000]], dtype=torch.float64)
    """
    start = second_order_contexts(unembedding, probs, bias)
    undefined = start.isnan().any(1, keepdim=True)
    if undefined.all():
        return start
    u, p = in_float64(unembedding), in_float64(probs).to(start.device)
    undefined |= ~(p > 0).all(1, keepdim=True)
    # A row without a best context is solved for the uniform distribution instead, and masked below.
    start, p = start.masked_fill(undefined, 0.0), p.masked_fill(undefined, 1 / len(u))
    b = u.new_zeros(len(u)) if bias is None else in_float64(bias).to(u.device)

    def loss(w: Tensor) -> Tensor:
        return cross_entropy(w @ u.mT + b, p, reduction="none")

    # Far from p second order can end where the softmax is flat, and no step leads back.
    better = loss(start) < loss(torch.zeros_like(start))
    w = torch.where(better[:, None], start, 0.0)
    now = loss(w)
    for _ in range(_STEPS):
        q = (w @ u.mT + b).softmax(-1)
        gradient, around = (q - p) @ u, u - (q @ u)[:, None]  # (M, d), (M, N, d)
        curvature = around.mT @ (q[..., None] * around)
        step = (
            torch.linalg.pinv(curvature, hermitian=True, rtol=1e-14) @ gradient[..., None]
        ).squeeze(-1)
        scale = torch.ones_like(now)
        for _ in range(_HALVINGS):
            worse = ~(loss(w - scale[:, None] * step) <= now)
            if not worse.any():
                break
            scale = torch.where(worse, scale / 2, scale)
        scale = torch.where(worse, 0.0, scale)
        w = w - scale[:, None] * step
        before, now = now, loss(w)
        if not (before - now > 1e-15 * before).any():
            break
    return w.masked_fill(undefined, torch.nan)
