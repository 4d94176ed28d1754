"""The context vectors that are best for an unembedding."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lit_credit.functional._attention import in_float64
from lit_credit.functional.log_prob_theory import second_order_contexts

__all__ = ["optimal_contexts"]

_STEPS, _HALVINGS = 100, 40


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
    # What has no best context is solved in the place of the uniform distribution, and left out.
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
