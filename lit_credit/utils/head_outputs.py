"""What each head of an attention adds to the stream."""

from collections.abc import Sequence

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lit_credit.utils.attention import AttentionCall
from lit_credit.utils.attention_heads import AttentionHeads

__all__ = ["calls_of", "head_outputs"]


def calls_of(heads: AttentionHeads, calls: Sequence[AttentionCall]) -> list[AttentionCall]:
    """The recorded attention that these heads computed, in it or in a submodule of it.

    Raises:
        MisconfigurationException: if there is none.
    """
    prefix = f"{heads.name}." if heads.name else ""
    found = [c for c in calls if c.module == heads.name or c.module.startswith(prefix)]
    if not found:
        raise MisconfigurationException(
            f"no attention was seen inside of {heads.name or 'the module'!r} in the forward pass, "
            f"but in: {', '.join(dict.fromkeys(c.module for c in calls)) or 'none'}. Leave it out "
            "by `units`."
        )
    return found


def head_outputs(
    heads: AttentionHeads, call: AttentionCall, attention: nn.Module, x: Tensor | None
) -> Tensor:
    r"""Each head's part of the attention's output, without the bias of all of them together.

    .. math:: y_h = A_h (x W_{V,h} + b_{V,h}) \, W_{O,h}^\top

    Args:
        heads: the weights.
        call: A, and the values where they were seen.
        attention: the submodule.
        x: what the submodule was given, (N, T, d_model); used where values were not seen, as of an
            explicit softmax, and then it must be what the values are made of.

    Returns:
        (H, N, T, d_model).

    Raises:
        MisconfigurationException: if values were not seen and ``x`` does not fit.
    """
    value = call.value
    if value is None:
        value = _values(heads, call, attention, x)
    elif (shared := len(heads.query) // value.shape[1]) > 1:
        value = value.repeat_interleave(shared, 1)
    mixed = call.weights.detach() @ value.detach()  # (N, H, T, d_head)
    return torch.einsum("nhtk,hdk->hntd", mixed, heads.output.to(mixed.dtype))


def _values(
    heads: AttentionHeads, call: AttentionCall, attention: nn.Module, x: Tensor | None
) -> Tensor:
    """(N, H, S, d_head), from the input."""
    if isinstance(attention, nn.MultiheadAttention) and not attention.batch_first and x is not None:
        x = x.transpose(0, 1)
    samples, _, _, keys = call.weights.shape
    expected = samples, keys, heads.value.shape[1]
    if x is None or x.shape != expected:
        shape = None if x is None else tuple(x.shape)
        raise MisconfigurationException(
            f"the values of {heads.name!r} were not seen, and its input has shape {shape}, not "
            f"{expected}, so what its heads add is not known. Let it compute attention by torch's "
            "scaled_dot_product_attention, or leave it out by `units`."
        )
    value = torch.einsum("nsd,hdk->nhsk", x.detach(), heads.value.to(x.dtype))
    return value if heads.value_bias is None else value + heads.value_bias[:, None].to(x.dtype)
