"""Multi-head attention whose four projections send the error back through fixed random weights."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_credit.feedback.layers import FeedbackLayer
from lit_credit.feedback.ops import feedback_linear

__all__ = ["FeedbackMultiheadAttention"]

# Legend: T target positions, S source positions, N samples, H heads, D features of a head,
# E = H D features in all.


class FeedbackMultiheadAttention(FeedbackLayer, nn.MultiheadAttention):
    """``nn.MultiheadAttention`` with a feedback for each of its projections.

    The attention itself has no weights, so its backward is exact. ``out_proj`` is a separate
    feedback layer.
    """

    in_proj_feedback: Tensor
    q_proj_feedback: Tensor
    k_proj_feedback: Tensor
    v_proj_feedback: Tensor

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; arguments and results are those of ``nn.MultiheadAttention``."""
        # Without gradients torch may use a fused kernel, which rounds differently.
        if not (self.sends_feedback() and self._needs_gradient(query, key, value)):
            return super().forward(
                query,
                key,
                value,
                key_padding_mask=key_padding_mask,
                need_weights=need_weights,
                attn_mask=attn_mask,
                average_attn_weights=average_attn_weights,
                is_causal=is_causal,
            )
        _check_masks(key_padding_mask, attn_mask, is_causal)
        batched = query.dim() == 3
        q, k, v = map(self._split_heads, self._project(*self._time_first(query, key, value)))
        mask = _merge_masks(key_padding_mask, attn_mask, self.num_heads, query.dtype)
        weights = None
        if need_weights:
            context, weights = self._attend_openly(q, k, v, mask)
        else:
            causal = is_causal and key_padding_mask is None
            dropout = self.dropout if self.training else 0.0
            mask = None if causal else mask
            context = F.scaled_dot_product_attention(q, k, v, mask, dropout, causal)
        # Like the plain layer, do not call `out_proj` itself, so that its hooks do not fire.
        output = self.out_proj.forward(context.permute(2, 0, 1, 3).flatten(2).flatten(0, 1))
        output = torch.unflatten(output, 0, (-1, context.shape[0]))  # (T, N, E)
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if not batched:
            return output.squeeze(1), None if weights is None else weights.squeeze(0)
        return output.transpose(0, 1) if self.batch_first else output, weights

    def _needs_gradient(self, *inputs: Tensor) -> bool:
        return any(tensor.requires_grad for tensor in (*inputs, *self.parameters()))

    def _time_first(self, *inputs: Tensor) -> list[Tensor]:
        """Bring every input to (T, N, E); if batched, equal inputs remain one tensor."""
        if inputs[0].dim() == 2:
            return [tensor.unsqueeze(1) for tensor in inputs]
        if not self.batch_first:
            return list(inputs)
        query, key, value = inputs
        first = query.transpose(0, 1)
        second = first if key is query else key.transpose(0, 1)
        return [first, second, second if value is key else value.transpose(0, 1)]

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Queries, keys and values, (T or S, N, E) each; equal inputs share one product."""
        # The numbers of projections per product: the plain layer groups them in the same way.
        if self.in_proj_weight is None or key is not value:
            groups = [(query, 1), (key, 1), (value, 1)]
        else:
            groups = [(query, 3)] if query is key else [(query, 1), (key, 2)]
        sizes = [count * self.embed_dim for _, count in groups]
        weights: Sequence[Tensor] = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        if self.in_proj_weight is None:
            names = ("q_proj_feedback", "k_proj_feedback", "v_proj_feedback")
            feedbacks = [self.sent(getattr(self, name)) for name in names]
        else:
            weights = _split_rows(self.in_proj_weight, sizes)
            feedbacks = _split_rows(self.sent(self.in_proj_feedback), sizes)
        biases: Sequence[Tensor | None] = [None] * len(sizes)
        if self.in_proj_bias is not None:
            biases = _split_rows(self.in_proj_bias, sizes)
        projected: list[Tensor] = []
        for (x, count), weight, bias, feedback in zip(
            groups, weights, biases, feedbacks, strict=True
        ):
            y = feedback_linear(x, weight, bias, feedback, self.signs(weight))
            parts = torch.unflatten(y, -1, (count, self.embed_dim)).movedim(-2, 0)
            projected.extend(parts.contiguous().unbind(0))
        return projected

    def _split_heads(self, x: Tensor) -> Tensor:
        """(T, N, E) to (N, H, T, D)."""
        return torch.unflatten(x, -1, (self.num_heads, self.head_dim)).permute(1, 2, 0, 3)

    def _attend_openly(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Attention that returns its weights: context (N, H, T, D), weights (N, H, T, S)."""
        heads = q.shape[:2]
        q, k, v = (x.flatten(0, 1) for x in (q, k, v))
        q = q * math.sqrt(1.0 / self.head_dim)
        if mask is None:
            scores = torch.bmm(q, k.transpose(1, 2))
        else:
            mask = mask.expand(*heads, -1, -1).flatten(0, 1) if mask.shape[0] > 1 else mask[0]
            scores = torch.baddbmm(mask, q, k.transpose(1, 2))
        weights = F.dropout(torch.softmax(scores, dim=-1), self.dropout, self.training)
        context = torch.bmm(weights, v)
        return torch.unflatten(context, 0, heads), torch.unflatten(weights, 0, heads)


def _split_rows(stacked: Tensor, sizes: list[int]) -> list[Tensor]:
    # Splitting into one part would cost a copy in backward.
    return [stacked] if len(sizes) == 1 else list(torch.split(stacked, sizes))


def _check_masks(
    key_padding_mask: Tensor | None, attn_mask: Tensor | None, is_causal: bool
) -> None:
    if is_causal and attn_mask is None:
        raise ValueError(
            "`is_causal` is only a hint about `attn_mask`, which is None: pass the mask, for "
            "instance `nn.Transformer.generate_square_subsequent_mask(length)`."
        )
    for name, mask in {"key_padding_mask": key_padding_mask, "attn_mask": attn_mask}.items():
        if mask is not None and mask.dtype != torch.bool and not mask.is_floating_point():
            raise ValueError(f"`{name}` has dtype {mask.dtype}, expected bool or floating point.")


def _merge_masks(
    key_padding_mask: Tensor | None, attn_mask: Tensor | None, heads: int, dtype: torch.dtype
) -> Tensor | None:
    """One mask to add to the scores, (1 or N, 1 or H, 1 or T, S), or None."""
    merged = None
    if attn_mask is not None:
        merged = _additive(attn_mask, dtype)
        shared = merged.dim() == 2
        merged = merged[None, None] if shared else torch.unflatten(merged, 0, (-1, heads))
    if key_padding_mask is not None:
        padding = _additive(key_padding_mask, dtype)
        padding = padding[None] if padding.dim() == 1 else padding
        padding = padding[:, None, None, :]
        merged = padding if merged is None else merged + padding
    return merged


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -math.inf)
