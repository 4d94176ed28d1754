"""Attention that has its heads as one stack of matrices each, as in TransformerLens."""

import math

from torch import Tensor, nn

from lit_credit.utils.attention_heads import AttentionHeads

__all__ = ["has_stacked_heads", "stacked_heads"]

_WEIGHTS = ("W_Q", "W_K", "W_V", "W_O")


def has_stacked_heads(module: nn.Module) -> bool:
    """Whether a module has W_Q, W_K, W_V of (H, d_model, d_head) and W_O of (H, d_head, d_model).

    Keys and values that heads share may be computed from fewer, by a property.
    """
    if "W_Q" not in module._parameters or "W_O" not in module._parameters:
        return False
    found = [getattr(module, name, None) for name in _WEIGHTS]
    if not all(isinstance(x, Tensor) and x.ndim == 3 and x.is_floating_point() for x in found):
        return False
    (heads, width, size), output = found[0].shape, found[3].shape  # type: ignore[union-attr]
    shared = all(x.shape == (heads, width, size) for x in found[1:3])  # type: ignore[union-attr]
    return shared and output == (heads, size, width)


def stacked_heads(attention: nn.Module) -> AttentionHeads:
    """Views of the weights, outside of any graph; scores are divided by ``attn_scale``."""
    query, key, value, output = (getattr(attention, name).detach() for name in _WEIGHTS)
    size = query.shape[2]
    biases = {
        name: bias.detach() if isinstance(bias := getattr(attention, own, None), Tensor) else None
        for name, own in (
            ("query_bias", "b_Q"),
            ("key_bias", "b_K"),
            ("value_bias", "b_V"),
            ("output_bias", "b_O"),
        )
    }
    divisor = getattr(attention, "attn_scale", None)
    if isinstance(divisor, int | float) and not math.isclose(divisor, math.sqrt(size)):
        factor = math.sqrt(size) / divisor
        query = query * factor
        biases["query_bias"] = None if (b := biases["query_bias"]) is None else b * factor
    return AttentionHeads(
        query=query, key=key, value=value, output=output.transpose(1, 2), **biases
    )
