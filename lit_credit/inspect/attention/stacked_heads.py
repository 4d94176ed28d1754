"""Reading attention that stacks the matrices of its heads, as in TransformerLens."""

import math

from torch import Tensor, nn

from lit_credit.inspect.attention.heads import AttentionHeads
from lit_credit.utils.private_names import own_parameters

__all__ = ["has_stacked_heads", "stacked_heads"]

_WEIGHTS = ("W_Q", "W_K", "W_V", "W_O")


def has_stacked_heads(module: nn.Module) -> bool:
    """Whether a module has W_Q, W_K, W_V of (H, d_model, d_head) and W_O of (H, d_head, d_model).

    W_K and W_V may be properties that repeat keys and values shared by heads.
    """
    if not {"W_Q", "W_O"} <= own_parameters(module).keys():
        return False
    found = [getattr(module, name, None) for name in _WEIGHTS]
    if not all(isinstance(x, Tensor) and x.ndim == 3 and x.is_floating_point() for x in found):
        return False
    (heads, width, size), output = found[0].shape, found[3].shape  # type: ignore[union-attr]
    shared = all(x.shape == (heads, width, size) for x in found[1:3])  # type: ignore[union-attr]
    return shared and output == (heads, size, width)


def stacked_heads(attention: nn.Module) -> AttentionHeads:
    """Read the weights as views without a graph; a divisor ``attn_scale`` goes into the query."""
    query, key, value, output = (getattr(attention, name).detach() for name in _WEIGHTS)
    size = query.shape[2]
    query_bias, key_bias, value_bias, output_bias = (
        bias.detach() if isinstance(bias := getattr(attention, name, None), Tensor) else None
        for name in ("b_Q", "b_K", "b_V", "b_O")
    )
    divisor = getattr(attention, "attn_scale", None)
    if isinstance(divisor, int | float) and not math.isclose(divisor, math.sqrt(size)):
        factor = math.sqrt(size) / divisor
        query = query * factor
        query_bias = None if query_bias is None else query_bias * factor
    return AttentionHeads(
        query=query,
        key=key,
        value=value,
        output=output.transpose(1, 2),
        query_bias=query_bias,
        key_bias=key_bias,
        value_bias=value_bias,
        output_bias=output_bias,
    )
