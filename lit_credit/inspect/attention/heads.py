"""Containers for the weights of attention heads, their rotation and their score norm."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

__all__ = ["AttentionHeads", "Rope", "RopeLayout", "ScoreNorm"]

RopeLayout = Literal["interleaved", "half"]

# Legend: H heads, d_model features of the residual stream, d_head features of a head.


@dataclass(frozen=True, eq=False)
class Rope:
    """Rotary position embedding of queries and keys.

    Pair i of features turns by ``position * frequencies[i]``. Features beyond the pairs do not
    turn.

    Args:
        frequencies: (pairs,), radians per position.
        layout: which features are pair i: (2i, 2i + 1) if ``interleaved``, (i, i + pairs) if
            ``half``.
        scale: factor on the features that turn, as in YaRN.

    Raises:
        ValueError: if ``frequencies`` is not a vector, or the layout is neither of the two.

    Reference:
        Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021,
        arXiv 2104.09864, equation 34.
    """

    frequencies: Tensor
    layout: RopeLayout
    scale: float = 1.0

    @property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """Indices of the first features, and of the second features, of all pairs."""
        count = len(self.frequencies)
        place = torch.arange(count, device=self.frequencies.device)
        return (place, place + count) if self.layout == "half" else (2 * place, 2 * place + 1)

    def __post_init__(self) -> None:
        if self.frequencies.ndim != 1:
            raise ValueError(
                f"`frequencies` has shape {tuple(self.frequencies.shape)}, expected (pairs,)"
            )
        if self.layout not in get_args(RopeLayout):
            choices = " or ".join(map(repr, get_args(RopeLayout)))
            raise ValueError(f"`layout` is {self.layout!r}, expected {choices}")


@dataclass(frozen=True, eq=False)
class ScoreNorm:
    """A norm of queries and keys, after their projection and before their rotation.

    Queries and keys are each divided by their size and multiplied by a gain. So the bilinear form
    between two positions is that of the projections with these gains, times a positive factor that
    depends on the two positions.

    Args:
        centred: whether the mean of the features is subtracted first, as LayerNorm does.
        joint: whether the size is that of all heads together, as in OLMo 2.
        query_gain: (H, d_head), or None.
        key_gain: (H, d_head), or None.
        query_shift: (H, d_head), added after the gain, or None.
        key_shift: (H, d_head), or None.
        epsilon: number added to the mean square.
    """

    centred: bool
    joint: bool
    query_gain: Tensor | None = None
    key_gain: Tensor | None = None
    query_shift: Tensor | None = None
    key_shift: Tensor | None = None
    epsilon: float = 0.0


@dataclass(frozen=True, eq=False, kw_only=True)
class AttentionHeads:
    r"""The weights of all heads of one attention, which reads x and adds y to the stream.

    .. math::
        q_h = x W_{Q,h} + b_{Q,h} \quad (k, v \text{ alike}), \qquad
        s_h = q_h k_h^\top / \sqrt{d_{head}}, \qquad
        y = \sum_h A_h v_h W_{O,h}^\top + b_O

    Shared keys and values are repeated, so that every head has its own. If scores are scaled by
    another number than :math:`1/\sqrt{d_{head}}`, the difference is part of ``query``.

    Args:
        query: W_Q, (H, d_model, d_head).
        key: W_K, (H, d_model, d_head).
        value: W_V, (H, d_model, d_head).
        output: W_O, (H, d_model, d_head).
        query_bias: (H, d_head), or None.
        key_bias: (H, d_head), or None.
        value_bias: (H, d_head), or None.
        output_bias: (d_model,), the bias of all heads together, or None.
        norm_gain: (d_model,), the gain of the norm through which the attention reads the stream;
            None if the norm is not known, or has no gain.
        rope: how queries and keys are rotated; None if they are not.
        score_norm: how queries and keys are normed; None if they are not. ``query`` and ``key`` are
            the weights before the norm; :meth:`folded` includes the norm in them.
        doubt: why names do not tell how queries and keys are normed or rotated; "" if they do.
        name: name of the submodule, as :meth:`torch.nn.Module.get_submodule` takes it.

    Raises:
        ValueError: if the shapes do not fit together.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    query_bias: Tensor | None = None
    key_bias: Tensor | None = None
    value_bias: Tensor | None = None
    output_bias: Tensor | None = None
    norm_gain: Tensor | None = None
    rope: Rope | None = None
    score_norm: ScoreNorm | None = None
    doubt: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if self.query.ndim != 3:
            raise ValueError(
                f"`query` has shape {tuple(self.query.shape)}, expected (H, d_model, d_head)"
            )
        heads, d_model, d_head = self.query.shape
        expected = {
            **dict.fromkeys(("key", "value", "output"), (heads, d_model, d_head)),
            **dict.fromkeys(("query_bias", "key_bias", "value_bias"), (heads, d_head)),
            **dict.fromkeys(("output_bias", "norm_gain"), (d_model,)),
        }
        for field, shape in expected.items():
            tensor = getattr(self, field)
            if tensor is not None and tensor.shape != shape:
                raise ValueError(
                    f"`{field}` has shape {tuple(tensor.shape)}, expected {shape} beside `query` "
                    f"of {tuple(self.query.shape)}, (H, d_model, d_head)"
                )
        if self.rope is not None and 2 * len(self.rope.frequencies) > d_head:
            raise ValueError(
                f"`rope` turns {len(self.rope.frequencies)} pairs of features, but a head has "
                f"{d_head} features"
            )

    def folded(self) -> "AttentionHeads":
        """The same heads, with the score norm's gains and centring folded into the weights.

        The scale of the rotation is folded into ``query`` and ``key`` too. The biases of queries
        and keys are left out.
        """
        if self.score_norm is None and (self.rope is None or self.rope.scale == 1.0):
            return self
        norm, query, key = self.score_norm, self.query, self.key
        if norm is not None:
            if norm.centred:
                over = (0, 2) if norm.joint else 2
                query, key = (w - w.mean(over, keepdim=True) for w in (query, key))
            query = query if norm.query_gain is None else query * norm.query_gain[:, None]
            key = key if norm.key_gain is None else key * norm.key_gain[:, None]
        rope = self.rope
        if rope is not None and rope.scale != 1.0:
            factor = query.new_ones(query.shape[-1])
            factor[torch.cat(rope.pairs)] = rope.scale
            query, key, rope = query * factor, key * factor, replace(rope, scale=1.0)
        left_out = dict.fromkeys(("query_bias", "key_bias", "score_norm"))
        return replace(self, query=query, key=key, rope=rope, **left_out)  # type: ignore[arg-type]
