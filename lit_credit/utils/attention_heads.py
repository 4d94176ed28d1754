"""The weights of an attention, head by head."""

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

__all__ = ["AttentionHeads", "Rope", "RopeLayout"]

RopeLayout = Literal["interleaved", "half"]

# Legend: H heads, d_model features of the residual stream, d_head features of a head.


@dataclass(frozen=True, eq=False)
class Rope:
    """Rotary position embedding of queries and keys.

    Pair i of features turns by ``position * frequencies[i]``. Features beyond the pairs do not.

    Args:
        frequencies: (pairs,), radians a position.
        layout: which features are pair i: (2i, 2i + 1) if ``interleaved``, (i, i + pairs) if
            ``half``.

    Raises:
        ValueError: if ``frequencies`` is no vector or the layout none of the two.

    Reference:
        Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021,
        arXiv 2104.09864, equation 34.
    """

    frequencies: Tensor
    layout: RopeLayout

    def __post_init__(self) -> None:
        if self.frequencies.ndim != 1:
            raise ValueError(
                f"`frequencies` has shape {tuple(self.frequencies.shape)}, expected (pairs,)"
            )
        if self.layout not in get_args(RopeLayout):
            choices = " or ".join(map(repr, get_args(RopeLayout)))
            raise ValueError(f"`layout` is {self.layout!r}, expected {choices}")


@dataclass(frozen=True, eq=False, kw_only=True)
class AttentionHeads:
    r"""The weights of all heads of one attention, which reads x and adds to the stream.

    .. math::
        q_h = x W_{Q,h} + b_{Q,h} \quad (k, v \text{ alike}), \qquad
        s_h = q_h k_h^\top / \sqrt{d_{head}}, \qquad
        y = \sum_h A_h v_h W_{O,h}^\top + b_O

    Where queries share keys and values, these are repeated, so that every head has its own. Scores
    that are scaled by something else than :math:`1/\sqrt{d_{head}}` have it in their query.

    Args:
        query: W_Q, (H, d_model, d_head).
        key: W_K, (H, d_model, d_head).
        value: W_V, (H, d_model, d_head).
        output: W_O, (H, d_model, d_head).
        query_bias: (H, d_head), or None.
        key_bias: (H, d_head), or None.
        value_bias: (H, d_head), or None.
        output_bias: (d_model,), of all heads together, or None.
        norm_gain: (d_model,), the gain of the norm through which the attention reads the stream;
            None where that is not known, or has none.
        rope: how queries and keys are rotated, None if they are not.
        name: of the submodule, as :meth:`torch.nn.Module.get_submodule` takes it.

    Raises:
        ValueError: if the shapes do not belong together.
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
