"""Causal self-attention with a choice of backward passes for its attention weights."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lit_credit.models.rotary import Rotary
from lit_credit.utils.ranges import check_choice, check_parts, check_range, check_sizes

__all__ = ["AttentionBackward", "AttentionKind", "AttentionWeights", "CausalSelfAttention"]

AttentionKind = Literal["softmax", "sigmoid"]
AttentionBackward = Literal["full", "diagonal", "ste"]


class AttentionWeights(nn.Module):
    r"""Attention weights A of scores S, with an exact, a local, or an identity backward.

    With g = dL/dA, the gradient dL/dS of ``backward`` is

    .. math::
        \text{full: } A (g - \textstyle\sum_j A_j g_j) \qquad
        \text{diagonal: } A (1 - A) g \qquad \text{ste: } g

    for softmax. For sigmoid, whose Jacobian is diagonal, ``full`` and ``diagonal`` are the same.
    The forward pass does not depend on ``backward``.

    Args:
        kind: ``softmax`` over the keys, or ``sigmoid(s - log n)`` for each score separately. Here n
            is the number of keys that the query may see, so that weights start near 1 / n; the
            reference takes n to be the length of the sequence.
        backward: gradient of the scores; it is zero where a query may not see a key.

    Raises:
        ValueError: if an argument is not one of its choices.

    Example:
        >>> scores = torch.zeros(2, 2, requires_grad=True)
        >>> weights = AttentionWeights(backward="ste")(scores, torch.ones(2, 2).tril().bool())
        >>> weights.sum().backward()
        >>> weights.tolist(), scores.grad.tolist()
        ([[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [1.0, 1.0]])

    Reference:
        Ramapuram et al., Theory, Analysis, and Best Practices for Sigmoid Self-Attention, 2024,
        arXiv 2409.04431.
    """

    returns_attention = True
    """Tells ``lit_credit.inspect.attention.recording`` that the output is A."""

    def __init__(
        self, kind: AttentionKind = "softmax", backward: AttentionBackward = "full"
    ) -> None:
        super().__init__()
        check_choice(get_args(AttentionKind), kind=kind)
        check_choice(get_args(AttentionBackward), backward=backward)
        self.kind = kind
        self.backward_kind = backward
        if backward != "full":
            # `lit_credit.inspect.exact_backward` sets it to False for the true gradient.
            self.feedback_backward = True

    def forward(self, scores: Tensor, allowed: Tensor) -> Tensor:
        """Map scores (..., T, S) to weights (..., T, S).

        Args:
            scores: scores of queries (rows) and keys (columns).
            allowed: bool, broadcastable to the scores; True where a query may see a key.
        """
        if self.kind == "sigmoid":
            scores = scores - allowed.sum(-1, keepdim=True).log()
        scores = scores.masked_fill(~allowed, -torch.inf)
        if not getattr(self, "feedback_backward", False):
            return _weights(scores, self.kind)
        weights: Tensor = _LocalBackward.apply(scores, self.kind, self.backward_kind)
        return weights

    def extra_repr(self) -> str:
        """The arguments."""
        return f"kind={self.kind!r}, backward={self.backward_kind!r}"


def _weights(scores: Tensor, kind: AttentionKind) -> Tensor:
    return scores.softmax(-1) if kind == "softmax" else scores.sigmoid()


class _LocalBackward(torch.autograd.Function):
    """Computes the gradient of each score from its own weight alone."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, kind: AttentionKind, backward: str) -> Tensor:
        weights = _weights(scores, kind)
        if backward == "diagonal":
            ctx.save_for_backward(weights)
        return weights

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        for weights in ctx.saved_tensors:
            gradient = gradient * weights * (1 - weights)
        return gradient, None, None


class CausalSelfAttention(nn.Module):
    """Multi-head self-attention in which a position sees itself and earlier positions.

    Args:
        width: features d of a position.
        heads: heads H; must divide ``width``.
        kind: see :class:`AttentionWeights`.
        backward: see :class:`AttentionWeights`.
        rope_theta: base of the rotary frequencies that rotate queries and keys, see
            :class:`lit_credit.models.Rotary`; None does not rotate them.

    Raises:
        ValueError: if ``heads`` does not divide ``width``, or if heads with an odd number of
            features should be rotated.

    Reference:
        Vaswani et al., Attention Is All You Need, 2017, arXiv 1706.03762, section 3.2.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kind: AttentionKind = "softmax",
        backward: AttentionBackward = "full",
        rope_theta: float | None = None,
    ) -> None:
        super().__init__()
        check_sizes(width=width)
        check_parts(heads=heads)
        check_range(above=0, rope_theta=rope_theta)
        if width % heads:
            raise ValueError(
                f"`heads` is {heads}, which does not divide `width`, {width}. Change one of them."
            )
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.o = nn.Linear(width, width)
        self.weights = AttentionWeights(kind, backward)
        self.rotary = None if rope_theta is None else Rotary(width // heads, rope_theta)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, d) to (N, T, d)."""
        q, k, v = (self._split(layer(x)) for layer in (self.q, self.k, self.v))  # (N, H, T, d/H)
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        if self.weights.kind == "softmax" and self.weights.backward_kind == "full":
            mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # (N, H, T, T)
            allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).tril()
            mixed = self.weights(scores, allowed) @ v
        output: Tensor = self.o(mixed.transpose(1, 2).flatten(2))
        return output

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)
